"""TextClassifier against what KerasHub recorded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from models.errors import PresetFileError
from models.fnet.packing import PackedText
from models.fnet.text_classifier import TextClassifier

CASE = Path(__file__).parents[1] / "keras/cases/fnet_text_classifier"
TOLERANCE = 2e-5  # float32; another library adds in another order


class Packed(BaseModel):
    token_ids: list[list[int]]
    segment_ids: list[list[int]]


class Texts(BaseModel):
    first: list[str]
    second: list[str]
    packed_single: Packed
    packed_pair: Packed


TEXTS = Texts.model_validate_json((CASE / "texts.json").read_bytes())


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return TextClassifier.from_preset(CASE / "preset")


def as_recorded(packed: list[PackedText]) -> Packed:
    return Packed(
        token_ids=[list(text.token_ids) for text in packed],
        segment_ids=[list(text.segment_ids) for text in packed],
    )


def test_single_texts_are_packed_as_recorded(classifier: TextClassifier) -> None:
    packed = [classifier.tokenize(text) for text in TEXTS.first]

    assert as_recorded(packed) == TEXTS.packed_single


def test_pairs_are_packed_as_recorded(classifier: TextClassifier) -> None:
    packed = [classifier.tokenize(*pair) for pair in zip(TEXTS.first, TEXTS.second, strict=True)]

    assert as_recorded(packed) == TEXTS.packed_pair


def test_logits_equal_those_of_keras_hub(classifier: TextClassifier) -> None:
    pairs = [classifier.tokenize(*pair) for pair in zip(TEXTS.first, TEXTS.second, strict=True)]

    logits = classifier.logits(pairs)

    expected = torch.from_numpy(np.load(CASE / "outputs.npz")["output"])
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_a_dtype_reaches_the_head() -> None:
    classifier = TextClassifier.from_preset(CASE / "preset", dtype=torch.bfloat16)

    assert {each.dtype for each in classifier.head.parameters()} == {torch.bfloat16}
    assert classifier.logits([classifier.tokenize("the fox")]).dtype == torch.float32


def test_more_segments_than_the_backbone_knows_are_refused(classifier: TextClassifier) -> None:
    with pytest.raises(ValueError, match="5 segments; 1 to 4 are allowed"):
        classifier.tokenize(*["fox"] * 5)


def test_a_preset_without_a_classifier_is_refused() -> None:
    with pytest.raises(PresetFileError, match=r"a backbone without a head: there is no task\.json"):
        TextClassifier.from_preset(CASE.parent / "fnet_base/preset")


def test_more_tokens_than_the_backbone_takes_are_refused(tmp_path: Path) -> None:
    shutil.copytree(CASE / "preset", tmp_path, dirs_exist_ok=True)
    task = json.loads((tmp_path / "task.json").read_text())
    task["config"]["preprocessor"] = None
    (tmp_path / "task.json").write_text(json.dumps(task))
    (tmp_path / "preprocessor.json").unlink()

    with pytest.raises(PresetFileError, match="sequence_length is 512; at most 12 are allowed"):
        TextClassifier.from_preset(tmp_path)
