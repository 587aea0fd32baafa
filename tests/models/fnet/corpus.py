"""Texts that tokenizers get wrong, and pairs of them. For tests and recorders."""

from typing import Literal

TEXTS = (
    "",
    " ",
    "   \t \n  ",
    "The quick brown fox jumps over the lazy dog.",
    "  two  spaces,   tabs\tand\nlines\r\n ",
    "🙂🙃 👩‍👩‍👧‍👦 🏳️‍🌈",
    "日本語の文、中文句子。한국어",
    "Café déjà vu: e\u0301 i\u0308 ﬁ ㎏ ℡ Å",
    "ΟΔΟΣ ΣΊΣΥΦΟΣ İstanbul STRASSE straße",
    "שלום עולם مرحبا بالعالم \u202eabc\u202c",
    "a\x00b \x01\x02\x7f \x85 \x1c \ufeff \u200b \u00ad",
    "[CLS] [SEP] [MASK] <pad> <unk> <s> </s>",
    "x[MASK]y  [MASK]z <PAD> <UNK> [mask] [MASK",
    "1,000 and 12,5, or 3, 4,\n7,",
    "``quoted'' and ''quoted``",
    "▁under ▁ ▁▁ score",
    "\ue000 \uffff \U0010ffff \U000e0041",
    ("zebra round " * 834)[:10_000],
    "fox" * 700,  # one word
    "e\u0301\u0301\u0301\u0301\u0301" * 20,
)
PAIRS = (
    ("the quick brown fox", "jumps over"),
    ("the quick brown fox jumps over the lazy dog", "a fox, a dog and a very lazy zebra"),
    ("fox", "the quick brown fox jumps over the lazy dog and a zebra"),
    ("the quick brown fox jumps over the lazy dog and a zebra", "fox"),
    ("", "the quick brown fox"),
    ("the quick brown fox", ""),
    ("", ""),
)
TRIPLES = (("the quick brown fox jumps", "over the lazy dog", "and a zebra runs"),)
LENGTHS = (5, 12, 13, 32)  # of packed texts
TRUNCATIONS: tuple[Literal["round_robin", "waterfall"], ...] = ("round_robin", "waterfall")
# What the small vocabulary was trained on
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "the quick brown fox and the lazy dog jump over a quick zebra",
    "A zebra and a fox run round and round, 3, 5, 1,000 or 12, times",
    'Café déjà vu, naïve e\u0301 " quoted "',
    "日本語 οδος σίσυφος straße istanbul",
    "the quick cat sat on the mat ; she did not jump over it",
    "years 3, 3, 5, 12, 12, 7, 7, 2000, 2000, and 45, 45, in the end",
    "over the quick fox a lazy zebra jumps and the quick dog runs",
)
