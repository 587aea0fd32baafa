"""Whether a sentence can be drawn: a reader of the lists that `captions` draws from.

With it a test shows that the free prompts, by which the image model is measured, are none of the
sentences that it was trained on.
"""

import re
from functools import cache

from training.captions import plural
from training.sentence_forms import (
    AFTER_PLACE,
    ARTICLES,
    BACKGROUNDS,
    BEFORE_PLACE,
    COLUMN_FORMS,
    ENDINGS,
    LATE_SIZES,
    LATE_SIZES_OF_ALL,
    LATE_SIZES_OF_BOTH,
    LEADING_BACKGROUNDS,
    LEADING_SEPARATORS,
    NO_COLOUR_NOUNS,
    NO_SHAPE_NOUNS,
    NOTHING_NOUNS,
    NOUNS,
    OPENINGS,
    PAIR_FORMS,
    PLAIN_NOUNS,
    REFERRING_COLUMN_FORMS,
    REFERRING_ROW_FORMS,
    ROW_FORMS,
    SEPARATORS,
)
from training.sentence_words import (
    AFTER_COUNTS,
    COLOUR_WORDS,
    CORNER_FORMS,
    CORNER_PHRASES,
    CORNER_WORDS,
    COUNT_ENDS,
    COUNTS,
    SHAPE_WORDS,
    SIDE_WORDS,
    SIZE_WORDS,
    VERY,
)


@cache
def can_be_drawn(sentence: str) -> bool:
    """Whether the lists can make this sentence; case and marks at the end do not matter."""
    plain = _a(re.sub(r"\s+", " ", sentence.lower()).strip(" .!?"))
    return len(plain) in _Reader(_rules(), plain).ends("sentence", 0)


# A rule is a list of forms; a form is words and slots in turn: (words, slot, words, ..., words).
_Rules = dict[str, list[tuple[str, ...]]]


class _Reader:
    """Read one sentence by rules, which must not begin with themselves."""

    def __init__(self, rules: _Rules, sentence: str) -> None:
        self._rules = rules
        self._sentence = sentence
        self._known: dict[tuple[str, int], frozenset[int]] = {}

    def ends(self, rule: str, start: int) -> frozenset[int]:
        """Say where something that the rule makes can end that starts here."""
        if (rule, start) not in self._known:
            forms = self._rules[rule]
            self._known[rule, start] = frozenset(
                end for form in forms for end in self._form_ends(form, start)
            )
        return self._known[rule, start]

    def _form_ends(self, form: tuple[str, ...], start: int) -> set[int]:
        ends = {start}
        for i, part in enumerate(form):
            if i % 2 == 1:
                ends = {end for at in ends for end in self.ends(part, at)}
            else:
                ends = {at + len(part) for at in ends if self._sentence.startswith(part, at)}
            if not ends:
                break
        return ends


@cache
def _rules() -> _Rules:
    """Rules for all that `caption` can make, and a little more; "a" stands for "an" as well."""
    shapes = _all(SHAPE_WORDS)
    forms = (*NOUNS, *PLAIN_NOUNS, *NO_COLOUR_NOUNS, *NO_SHAPE_NOUNS, *NOTHING_NOUNS,
             "{shape}", "nice {shape}", "simple {shape}")  # fmt: skip
    without_size = [form.replace("{size}", "").replace("  ", " ").strip(" ,") for form in forms]
    corners = [form.format(corner=c) for form in CORNER_FORMS for c in _all(CORNER_WORDS)]
    pairs = (*ROW_FORMS, *COLUMN_FORMS, *PAIR_FORMS, *REFERRING_ROW_FORMS, *REFERRING_COLUMN_FORMS)
    counted = [f"{count} {{noun}}{end}" for count in _all(COUNTS) for end in COUNT_ENDS]
    counted += [f"{{noun}}{after}" for after in _all(AFTER_COUNTS)]
    patterns = {
        "sentence": [f"{words}{{body}}{{ending}}" for words in OPENINGS],
        "ending": ENDINGS,
        "body": ["{lead}{noun}{rest}", "{lead}{pair}{rest}", "{lead}{counted}{rest}",
                 "{phrase}{separator before noun}{noun}{rest}"],
        "pair": [re.sub(r"\{\w+\}", "{noun}", re.sub(r"\{the_\w+\}", "{short name}", form))
                 for form in pairs],
        "short name": ["the {shape}", "the {colour} one"],
        "counted": counted,
        "rest": ["", "{separator}{phrase}{rest}"],
        "phrase": ["{place}", *BACKGROUNDS, *LATE_SIZES, *LATE_SIZES_OF_ALL, *LATE_SIZES_OF_BOTH],
        "separator": SEPARATORS,
        "separator before noun": LEADING_SEPARATORS,
        "lead": ["", *LEADING_BACKGROUNDS],
        "place": [f"{words}{{where}}{{after place}}" for words in BEFORE_PLACE],
        "where": [*_all(SIDE_WORDS), *corners, *_all(CORNER_PHRASES)],
        "after place": AFTER_PLACE,
        "noun": ["{article}{plain noun}", "a {article}{plain noun}"],
        "article": ARTICLES,
        "plain noun": [*forms, *without_size],
        "shape": [*shapes, *(plural(word) for word in shapes)],
        "size": _all(SIZE_WORDS),
        "colour": _all(COLOUR_WORDS),
        "background": _all(COLOUR_WORDS),
        "very": VERY,
        "a": ["the"],
    }  # fmt: skip
    return {
        name: [tuple(re.split(r"\{([\w ]+)\}", form)) for form in dict.fromkeys(map(_a, forms))]
        for name, forms in patterns.items()
    }


def _a(words: str) -> str:
    """Write "a" for "an"."""
    return re.sub(r"(?<![a-z])an ", "a ", words)


def _all(words: dict[str, tuple[str, ...]] | dict[int, tuple[str, ...]]) -> list[str]:
    return [word for alternatives in words.values() for word in alternatives]
