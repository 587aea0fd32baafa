"""MaskedLM against KerasHub (recorded) and transformers (live)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    FNetConfig,
    FNetForMaskedLM,
    FNetForPreTraining,
    FNetModel,
    FNetTokenizer,
    PreTrainedModel,
)

from models.errors import InputError, PresetFileError, WeightsError
from models.fnet.masked_lm import MaskedLM
from tests.models.random_weights import randomise

RECORDED = Path(__file__).parent / "recorded"
CASES = RECORDED.parents[1] / "keras/cases"
KERAS_TOLERANCE = 2e-5  # float32; another library adds in another order
TOLERANCE = 1e-5
CONFIG = FNetConfig(
    vocab_size=90,  # the vocabulary has 87
    hidden_size=8,
    num_hidden_layers=2,
    intermediate_size=12,
    max_position_embeddings=64,
)


def saved(model_class: type[PreTrainedModel], directory: Path) -> PreTrainedModel:
    model = model_class(CONFIG).eval()
    randomise(model, seed=3)
    model.save_pretrained(directory)
    FNetTokenizer.from_pretrained(RECORDED / "transformers_4_fast").save_pretrained(directory)
    return model


def assert_equals(masked_lm: MaskedLM, oracle: FNetForMaskedLM) -> None:
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(0, 90, (3, 11), generator=generator)
    segment_ids = torch.randint(0, 4, (3, 11), generator=generator)
    positions = torch.randint(0, 11, (3, 2), generator=generator)
    with torch.no_grad():
        theirs = oracle(input_ids=token_ids, token_type_ids=segment_ids)
    scores = getattr(theirs, "logits", None)
    everywhere = theirs.prediction_logits if scores is None else scores
    expected = torch.stack([row[at] for row, at in zip(everywhere, positions, strict=True)])
    logits = masked_lm.logits(token_ids, segment_ids, positions)
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_logits_equal_those_of_keras_hub() -> None:
    masked_lm = MaskedLM.from_preset(RECORDED / "masked_lm")
    case = np.load(RECORDED / "masked_lm/case.npz")
    inputs = (case["token_ids"], case["segment_ids"], case["mask_positions"])

    logits = masked_lm.logits(*(torch.from_numpy(each).long() for each in inputs))

    expected = torch.from_numpy(case["logits"])
    torch.testing.assert_close(logits, expected, atol=KERAS_TOLERANCE, rtol=0)


@pytest.mark.parametrize("model_class", [FNetForMaskedLM, FNetForPreTraining])
def test_logits_equal_those_of_transformers(
    model_class: type[PreTrainedModel], tmp_path: Path
) -> None:
    oracle = saved(model_class, tmp_path)

    assert_equals(MaskedLM.from_preset(tmp_path), oracle)


def test_the_bias_is_found_under_its_other_name(tmp_path: Path) -> None:
    oracle = saved(FNetForMaskedLM, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")
    tensors["cls.predictions.decoder.weight"] = tensors["fnet.embeddings.word_embeddings.weight"]
    save_file(
        {name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "model.safetensors"
    )

    assert_equals(MaskedLM.from_preset(tmp_path), oracle)


def test_adapters_of_the_token_embedding_count_in_the_head_too(tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "masked_lm", tmp_path, dirs_exist_ok=True)
    adapted = MaskedLM.from_preset(tmp_path)
    adapted.backbone.enable_lora(rank=2, target_names=["token_embedding"])
    randomise(adapted.backbone.token_embedding.adapters)
    adapted.backbone.save_to_preset(tmp_path)  # as part of the weights
    token_ids, positions = torch.tensor([[2, 5, 4, 3]]), torch.tensor([[2]])

    logits = adapted.logits(token_ids, torch.zeros_like(token_ids), positions)

    merged = MaskedLM.from_preset(tmp_path)
    expected = merged.logits(token_ids, torch.zeros_like(token_ids), positions)
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_masks_are_filled_as_transformers_fills_them(tmp_path: Path) -> None:
    oracle = saved(FNetForMaskedLM, tmp_path)
    masked_lm = MaskedLM.from_preset(tmp_path)
    text = "the quick [MASK] jumps over the [MASK] dog"

    filled = masked_lm.fill(text, num_candidates=3)

    tokenizer = FNetTokenizer.from_pretrained(tmp_path)
    row = tokenizer(text, padding="max_length", max_length=32, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        scores = oracle(input_ids=row).logits[0].softmax(dim=-1)
    expected = scores[row[0] == tokenizer.mask_token_id].topk(3)
    assert [[each.token_id for each in mask] for mask in filled] == expected.indices.tolist()
    probabilities = torch.tensor([[each.probability for each in mask] for mask in filled])
    torch.testing.assert_close(probabilities, expected.values, atol=TOLERANCE, rtol=0)


def test_masks_are_filled_from_a_keras_hub_preset() -> None:
    filled = MaskedLM.from_preset(RECORDED / "masked_lm").fill("the [MASK] fox and[MASK]", 4)

    assert [len(candidates) for candidates in filled] == [4, 4]
    probabilities = [candidate.probability for candidate in filled[0]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_a_text_without_a_mask_is_refused() -> None:
    with pytest.raises(InputError, match=r"has no \[MASK\]"):
        MaskedLM.from_preset(RECORDED / "masked_lm").fill("the quick fox")


@pytest.mark.parametrize("preset", ["fnet_base", "fnet_text_classifier"])
def test_a_keras_hub_preset_of_another_kind_is_refused(preset: str) -> None:
    with pytest.raises(PresetFileError, match=r"without a head|keras_hub>FNetMaskedLM is allowed"):
        MaskedLM.from_preset(CASES / preset / "preset")


def test_a_bare_transformers_model_is_refused(tmp_path: Path) -> None:
    saved(FNetModel, tmp_path)

    with pytest.raises(PresetFileError, match="holds no masked-LM head"):
        MaskedLM.from_preset(tmp_path)


def test_a_head_that_shares_nothing_is_refused(tmp_path: Path) -> None:
    saved(FNetForMaskedLM, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(PresetFileError, match="tie_word_embeddings is false"):
        MaskedLM.from_preset(tmp_path)


def test_a_missing_tensor_of_the_head_is_named(tmp_path: Path) -> None:
    saved(FNetForMaskedLM, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["cls.predictions.transform.LayerNorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors")

    with pytest.raises(
        WeightsError, match=r"missing: cls\.predictions\.transform\.LayerNorm\.bias"
    ):
        MaskedLM.from_preset(tmp_path)


def test_a_missing_weights_file_of_the_task_is_named(tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "masked_lm", tmp_path, dirs_exist_ok=True)
    (tmp_path / "task.weights.h5").unlink()

    with pytest.raises(PresetFileError, match=r"task\.weights\.h5 is missing"):
        MaskedLM.from_preset(tmp_path)
