"""Token ids from the files that checkpoints have, against transformers and sentencepiece."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import CLIPTokenizer, T5Tokenizer

from models.errors import PresetFileError
from models.flux.tokenizers import TextTokenizer
from models.presets import get_preset

BUNDLED = Path(get_preset("flux_shapes").handle)
TEXTS = (
    "a red circle",
    "",
    "Draw a SMALL  black cross\n in the top-left corner, please!",
    "naïve ☃ 24 <pad> stars</s> and <|endoftext|> rings",
    "red " * 40,
)


@pytest.mark.parametrize("length", [2, 9, 32])
def test_clips_ids_are_those_of_transformers(length: int) -> None:
    oracle = CLIPTokenizer.from_pretrained(BUNDLED / "tokenizer")
    got = TextTokenizer.clip(BUNDLED / "tokenizer").encode(TEXTS, length)
    expected = oracle(
        list(TEXTS), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    assert torch.equal(got.ids, expected.input_ids)


@pytest.mark.parametrize("length", [1, 9, 32])
def test_t5s_ids_are_those_of_transformers(length: int) -> None:
    oracle = T5Tokenizer.from_pretrained(BUNDLED / "tokenizer_2")
    got = TextTokenizer.t5(BUNDLED / "tokenizer_2").encode(TEXTS, length)
    expected = oracle(
        list(TEXTS), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    assert torch.equal(got.ids, expected.input_ids)
    assert got.num_tokens == tuple(map(len, oracle(list(TEXTS), verbose=False).input_ids))


def test_vocabulary_and_merges_give_the_same_ids(tmp_path: Path) -> None:
    model = json.loads((BUNDLED / "tokenizer/tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(merge) for merge in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    shutil.copy(BUNDLED / "tokenizer/tokenizer_config.json", tmp_path)
    whole, parts = (TextTokenizer.clip(each) for each in (BUNDLED / "tokenizer", tmp_path))
    assert torch.equal(parts.encode(TEXTS, 20).ids, whole.encode(TEXTS, 20).ids)
    assert (parts.eos_token_id, parts.max_tokens) == (whole.eos_token_id, whole.max_tokens)


def test_a_sentencepiece_model_gives_the_ids_of_sentencepiece(tmp_path: Path) -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS[:3], "the quick brown fox jumps over the lazy dog"] * 20),
        model_writer=written, vocab_size=40, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    (tmp_path / "spiece.model").write_bytes(written.getvalue())
    oracle = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    texts = ("a brown circle", "the lazy   black dog")
    got = TextTokenizer.t5(tmp_path).encode(texts, 40)
    for row, text, count in zip(got.ids.tolist(), texts, got.num_tokens, strict=True):
        assert row[:count] == oracle.encode(text, add_eos=True)
        assert set(row[count:]) == {0}


def test_tokens_are_named_in_the_form_of_older_files_too(tmp_path: Path) -> None:
    shutil.copy(BUNDLED / "tokenizer/tokenizer.json", tmp_path)
    stored = {"__type": "AddedToken", "content": "<|startoftext|>", "lstrip": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": stored}))
    row = TextTokenizer.clip(tmp_path).encode(["red"], 8).ids[0].tolist()
    assert row[3:] == row[:1] * 5


@pytest.mark.parametrize("stated", [{}, {"model_max_length": None}, {"model_max_length": 10**30}])
def test_some_files_state_no_limit(tmp_path: Path, stated: dict[str, int | None]) -> None:
    shutil.copy(BUNDLED / "tokenizer_2/tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated))
    assert TextTokenizer.t5(tmp_path).max_tokens >= sys.maxsize


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer.json", "{}", r"tokenizer.json cannot be read"),
        ("tokenizer_config.json", "[]", r"tokenizer_config.json is malformed"),
        ("tokenizer_config.json", '{"model_max_length": 0}', r"model_max_length\n.* equal to 1"),
        ("tokenizer_config.json", '{"pad_token": "<none>"}', r"tokenizer.json lacks '<none>' or"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, file: str, content: str, said: str) -> None:
    directory = Path(shutil.copytree(BUNDLED / "tokenizer_2", tmp_path / "tokenizer_2"))
    (directory / file).write_text(content)
    with pytest.raises(PresetFileError, match=said):
        TextTokenizer.t5(directory)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PresetFileError, match="tokenizer_2 is missing"):
        TextTokenizer.t5(tmp_path / "tokenizer_2")
