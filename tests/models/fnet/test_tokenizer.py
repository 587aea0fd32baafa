"""Tokenizer against KerasHub's, transformers 4's (both recorded) and transformers 5's (live)."""

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, TypeAdapter
from transformers import FNetTokenizer

from models.errors import InputError, PresetFileError, TextTooLongError
from models.fnet.formats.transformers_vocabulary import SpieceVocabulary, TokenizersVocabulary
from models.fnet.tokenizer import Tokenizer
from models.fnet.vocabulary import SentencePieceVocabulary
from tests.models.fnet.corpus import LENGTHS, PAIRS, TEXTS, TRIPLES, TRUNCATIONS

RECORDED = Path(__file__).parent / "recorded"
SMALL = RECORDED / "vocabulary.spm"
FAST = RECORDED / "transformers_4_fast"
CASE_FOLDING = RECORDED / "case_folding.spm"


class Row(BaseModel):
    token_ids: tuple[int, ...]
    segment_ids: tuple[int, ...]


class KerasHub(BaseModel):
    small: list[list[int]]
    case_folding: list[list[int]]
    settings: list[list[int]]
    packed: list[Row]


class Transformers4(BaseModel):
    settings: dict[str, bool]
    ids: list[list[int]]


KERAS_HUB = KerasHub.model_validate_json((RECORDED / "keras_hub.json").read_bytes())
TRANSFORMERS_4 = TypeAdapter(list[Transformers4]).validate_json(
    (RECORDED / "transformers_4.json").read_bytes()
)


@pytest.fixture
def small() -> Tokenizer:
    return Tokenizer(SentencePieceVocabulary(SMALL), 64)


@pytest.mark.parametrize("index", range(len(TEXTS)))
@pytest.mark.parametrize("which", ["small", "case_folding"])
def test_ids_equal_those_of_keras_hub(which: Literal["small", "case_folding"], index: int) -> None:
    vocabulary = SentencePieceVocabulary(SMALL if which == "small" else CASE_FOLDING)

    assert vocabulary.encode(TEXTS[index]) == getattr(KERAS_HUB, which)[index]


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_the_settings_of_a_keras_hub_tokenizer_are_followed(index: int, tmp_path: Path) -> None:
    (tmp_path / "assets/tokenizer").mkdir(parents=True)
    shutil.copy(SMALL, tmp_path / "assets/tokenizer/vocabulary.spm")
    config = {"proto": None, "sequence_length": 9, "add_bos": True, "add_eos": True}
    written = {"class_name": "FNetTokenizer", "config": config, "registered_name": "keras_hub>F"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))

    vocabulary = SentencePieceVocabulary.from_preset(tmp_path)

    assert vocabulary.encode(TEXTS[index]) == KERAS_HUB.settings[index]


PACKINGS = tuple(product(LENGTHS, TRUNCATIONS, PAIRS + TRIPLES))


@pytest.mark.parametrize("index", range(len(PACKINGS)))
def test_segments_are_packed_as_keras_hub_packs_them(index: int, small: Tokenizer) -> None:
    length, truncation, segments = PACKINGS[index]
    expected = KERAS_HUB.packed[index]

    packed = small.pack(segments, length, truncation)

    assert packed.token_ids == expected.token_ids
    assert packed.segment_ids == expected.segment_ids


@pytest.mark.parametrize("recorded", TRANSFORMERS_4, ids=lambda each: str(each.settings))
@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_a_spiece_model_is_read_as_transformers_4_reads_it(
    recorded: Transformers4, index: int, tmp_path: Path
) -> None:
    shutil.copy(SMALL, tmp_path / "spiece.model")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(recorded.settings))

    start, *ids, end = recorded.ids[index]

    assert SpieceVocabulary(tmp_path).encode(TEXTS[index]) == ids
    assert (start, end) == (4, 5)


@pytest.fixture(scope="module")
def oracle() -> FNetTokenizer:
    return FNetTokenizer.from_pretrained(FAST)


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_a_tokenizer_json_is_read_as_transformers_reads_it(
    index: int, oracle: FNetTokenizer
) -> None:
    vocabulary = TokenizersVocabulary(FAST / "tokenizer.json")

    assert [4, *vocabulary.encode(TEXTS[index]), 5] == oracle(TEXTS[index])["input_ids"]


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_what_transformers_5_saves_is_read_as_it_reads_it(
    index: int, oracle: FNetTokenizer, tmp_path: Path
) -> None:
    oracle.save_pretrained(tmp_path)
    again = FNetTokenizer.from_pretrained(tmp_path)

    ids = TokenizersVocabulary(tmp_path / "tokenizer.json").encode(TEXTS[index])

    assert [4, *ids, 5] == again(TEXTS[index])["input_ids"]


# transformers takes an empty second segment for none; KerasHub, and so we, do not
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[1]])
def test_pairs_are_packed_as_transformers_packs_them(
    pair: tuple[str, str], oracle: FNetTokenizer
) -> None:
    tokenizer = Tokenizer(TokenizersVocabulary(FAST / "tokenizer.json"), 128)

    packed = tokenizer.pack(pair, 128)

    expected = oracle(*pair, padding="max_length", max_length=128)
    assert list(packed.token_ids) == expected["input_ids"]
    num_tokens = packed.num_tokens  # transformers numbers padding otherwise: 3
    assert list(packed.segment_ids[:num_tokens]) == expected["token_type_ids"][:num_tokens]


def vocabularies() -> list[SentencePieceVocabulary | SpieceVocabulary | TokenizersVocabulary]:
    fast = TokenizersVocabulary(FAST / "tokenizer.json")
    return [SentencePieceVocabulary(SMALL), SpieceVocabulary(FAST), fast]


@pytest.mark.parametrize("kind", range(3))
def test_half_a_surrogate_pair_is_refused(kind: int) -> None:
    with pytest.raises(InputError, match=r"character 4 of the text is '\\ud83d', half a surrogate"):
        vocabularies()[kind].encode("fox \ud83d")


@pytest.mark.parametrize("kind", range(3))
def test_masks_are_found_in_each_kind_of_vocabulary(kind: int) -> None:
    tokenizer = Tokenizer(vocabularies()[kind], 32)

    ids = tokenizer.masked("the [MASK] fox and[MASK]dog").token_ids

    assert [ids.count(tokenizer.mask_id), ids.count(0)] == [2, 0]


def test_a_directory_of_transformers_is_told_from_one_of_keras_hub(tmp_path: Path) -> None:
    shutil.copytree(FAST, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "fnet"}))

    fast = Tokenizer.from_directory(tmp_path, 500, 32)
    (tmp_path / "tokenizer.json").unlink()
    slow = Tokenizer.from_directory(tmp_path, 500, 32)

    assert isinstance(fast.vocabulary, TokenizersVocabulary)
    assert isinstance(slow.vocabulary, SpieceVocabulary)


def test_a_vocabulary_larger_than_the_backbone_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FAST, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "fnet"}))

    with pytest.raises(PresetFileError, match="has 87 pieces, the backbone only 80"):
        Tokenizer.from_directory(tmp_path, 80, 32)


@pytest.mark.parametrize("content", ["", "{}", "not JSON"])
def test_a_damaged_tokenizer_json_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(PresetFileError, match=r"tokenizer\.json is not a tokenizer"):
        TokenizersVocabulary(tmp_path / "tokenizer.json")


def test_a_vocabulary_without_the_special_pieces_is_refused() -> None:
    class Other(SentencePieceVocabulary):
        def id_of(self, piece: str) -> int | None:
            return None if piece in ("[SEP]", "[MASK]") else super().id_of(piece)

    with pytest.raises(PresetFileError, match=r"lacks the pieces \[SEP\], \[MASK\]"):
        Tokenizer(Other(SMALL), 32)


def test_too_long_a_text_is_refused(small: Tokenizer) -> None:
    with pytest.raises(TextTooLongError, match="102 tokens; at most 64"):
        small("zebra round " * 50)
