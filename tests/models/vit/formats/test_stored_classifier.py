"""Classifiers that KerasHub and transformers wrote: the same logits, labels and preprocessing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTForImageClassification, ViTImageProcessorPil

from models.errors import PresetError, PresetFileError, WeightsError
from models.vit.image_classifier import ImageClassifier
from tests.models.keras.recorded import CASES
from tests.models.vit.transformers_oracles import (
    IMAGE_SIZE,
    LABELS,
    bare_oracle,
    classifying_oracle,
    saved,
)

RECORDED = Path(__file__).parents[1] / "recorded"
TOLERANCE = 1e-5  # against transformers, float32; the order of additions differs
KERAS_TOLERANCE = 2e-5
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8))


@pytest.fixture
def keras_preset(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECORDED / "gap_softmax", tmp_path / "preset"))


@pytest.fixture
def oracle() -> ViTForImageClassification:
    return classifying_oracle()


@pytest.fixture
def transformers_preset(oracle: ViTForImageClassification, tmp_path: Path) -> Path:
    ViTImageProcessorPil(size={"height": 8, "width": 12}).save_pretrained(tmp_path)
    return saved(oracle, tmp_path)


def change(file: Path, **changes: object) -> None:
    """Change keys at the top of a JSON file, and those of its `config`, where it has one."""
    stored = json.loads(file.read_text())
    stored.get("config", stored).update(changes)
    file.write_text(json.dumps(stored))


def test_a_recorded_task_gives_keras_hubs_logits() -> None:
    case = CASES / "vit_classifier"
    images = torch.from_numpy(np.load(case / "inputs.npz")["images"])

    logits = ImageClassifier.from_preset(case / "preset").logits(images)

    expected = torch.from_numpy(np.load(case / "outputs.npz")["logits"])
    torch.testing.assert_close(logits, expected, atol=KERAS_TOLERANCE, rtol=0)


def test_the_softmax_of_a_task_is_left_to_the_caller(keras_preset: Path) -> None:
    recorded = np.load(keras_preset / "case.npz")

    classifier = ImageClassifier.from_preset(keras_preset)
    probabilities = classifier.logits(torch.from_numpy(recorded["images"])).softmax(dim=-1)

    expected = torch.from_numpy(recorded["output"])
    torch.testing.assert_close(probabilities, expected, atol=KERAS_TOLERANCE, rtol=0)
    assert (classifier.head.config.pooling, classifier.head.config.dropout) == ("gap", 0.5)


@pytest.mark.parametrize("name", ["linear", "softmax", "sigmoid"])
def test_an_activation_may_be_stored_as_a_function(keras_preset: Path, name: str) -> None:
    function = {"module": "builtins", "class_name": "function", "config": name}
    change(keras_preset / "task.json", activation=function)

    assert ImageClassifier.from_preset(keras_preset).head.config.activation == name


def test_what_is_saved_again_is_the_same_task(keras_preset: Path, tmp_path: Path) -> None:
    classifier = ImageClassifier.from_preset(keras_preset)
    classifier.save_to_preset(tmp_path / "again")
    images = torch.randn(2, 8, 12, 3)

    again = ImageClassifier.from_preset(tmp_path / "again")

    assert torch.equal(again.logits(images), classifier.logits(images))
    assert again.converter == classifier.converter
    for name in ("task.json", "preprocessor.json", "image_converter.json"):
        assert json.loads((tmp_path / "again" / name).read_text()) == json.loads(
            (keras_preset / name).read_text()
        )


def test_the_tasks_own_preprocessing_is_what_counts_as_in_keras_hub(keras_preset: Path) -> None:
    expected = ImageClassifier.from_preset(keras_preset).preprocess(IMAGE)
    change(keras_preset / "image_converter.json", offset=5.0)

    assert torch.equal(ImageClassifier.from_preset(keras_preset).preprocess(IMAGE), expected)


def test_without_one_of_its_own_the_converter_beside_it_counts(keras_preset: Path) -> None:
    expected = ImageClassifier.from_preset(keras_preset).preprocess(IMAGE)
    change(keras_preset / "task.json", preprocessor=None)

    assert torch.equal(ImageClassifier.from_preset(keras_preset).preprocess(IMAGE), expected)


def test_without_any_converter_there_are_logits_but_no_images(keras_preset: Path) -> None:
    change(keras_preset / "task.json", preprocessor=None)
    (keras_preset / "image_converter.json").unlink()
    classifier = ImageClassifier.from_preset(keras_preset)

    assert classifier.logits(torch.randn(1, 8, 12, 3)).shape == (1, 3)
    with pytest.raises(PresetError, match=r"neither image_converter\.json nor preprocessor_config"):
        classifier.preprocess(IMAGE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": 5}, "activation"),
        ({"num_classes": 0}, "num_classes"),
        ({"pooling": "max"}, "pooling"),
        ({"preprocessor": {"config": {"image_converter": {"config": {
            "pad_to_aspect_ratio": True}}}}}, "only one of crop_to_aspect_ratio"),
        ({"preprocessor": {"config": {"image_converter": {"config": {
            "interpolation": "lanczos3"}}}}}, "interpolation"),
    ],
)  # fmt: skip
def test_a_task_that_is_not_understood_is_refused(
    keras_preset: Path, changes: dict[str, object], message: str
) -> None:
    change(keras_preset / "task.json", **changes)

    with pytest.raises(PresetFileError, match=rf"(?s)task\.json is malformed.*{message}"):
        ImageClassifier.from_preset(keras_preset)


def test_classes_that_a_preset_only_numbers_are_named_by_number(keras_preset: Path) -> None:
    assert ImageClassifier.from_preset(keras_preset).labels == ("class 0", "class 1", "class 2")


def test_a_thousand_classes_are_those_of_imagenet(tmp_path: Path) -> None:
    saved(classifying_oracle(id2label=None, label2id=None, num_labels=1000), tmp_path)
    ImageClassifier.from_preset(tmp_path).save_to_preset(tmp_path / "ours")
    (tmp_path / "ours/labels.json").unlink()

    labels = ImageClassifier.from_preset(tmp_path / "ours").labels

    assert labels[0] == "tench"
    assert len(labels) == 1000


def test_labels_of_our_own_come_first(keras_preset: Path, transformers_preset: Path) -> None:
    for preset in (keras_preset, transformers_preset):
        (preset / "labels.json").write_text('["x", "y", "z"]')
        assert ImageClassifier.from_preset(preset).labels == ("x", "y", "z")


@pytest.mark.parametrize(
    "changes", [{}, {"qkv_bias": False}, {"layer_norm_eps": 0.1}, {"patch_size": (4, 3)}], ids=str
)
def test_a_classifier_gives_the_logits_of_transformers(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    oracle = classifying_oracle(**changes)
    images = torch.randn(3, 3, *IMAGE_SIZE)

    logits = ImageClassifier.from_preset(saved(oracle, tmp_path)).logits(images.permute(0, 2, 3, 1))

    with torch.no_grad():
        expected = oracle(pixel_values=images).logits
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_a_image_gets_the_logits_of_transformers(
    oracle: ViTForImageClassification, transformers_preset: Path
) -> None:
    classifier = ImageClassifier.from_preset(transformers_preset)
    processor = ViTImageProcessorPil.from_pretrained(transformers_preset)

    logits = classifier.logits(classifier.preprocess(IMAGE)[None])

    with torch.no_grad():
        expected = oracle(**processor(IMAGE, return_tensors="pt")).logits
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)
    assert classifier.labels == LABELS


def test_without_a_processor_file_its_defaults_at_the_models_size_count(tmp_path: Path) -> None:
    classifier = ImageClassifier.from_preset(saved(classifying_oracle(), tmp_path))

    expected = ViTImageProcessorPil(size={"height": 8, "width": 12})(IMAGE, return_tensors="pt")
    assert torch.equal(classifier.preprocess(IMAGE).permute(2, 0, 1), expected.pixel_values[0])


@pytest.mark.parametrize("has_processor", [True, False])
def test_a_model_of_grey_images_is_shown_grey_levels(tmp_path: Path, has_processor: bool) -> None:
    oracle = classifying_oracle(num_channels=1)
    if has_processor:
        ViTImageProcessorPil(
            size={"height": 8, "width": 12}, image_mean=[0.5], image_std=[0.5]
        ).save_pretrained(tmp_path)
    classifier = ImageClassifier.from_preset(saved(oracle, tmp_path))

    assert classifier.preprocess(IMAGE).shape == (8, 12, 1)


@pytest.mark.parametrize("weights_format", ["h5", "safetensors"])
def test_a_classifier_of_transformers_comes_back_exactly(
    transformers_preset: Path, tmp_path: Path, weights_format: str
) -> None:
    theirs = ImageClassifier.from_preset(transformers_preset)
    theirs.save_to_preset(tmp_path / "ours", weights_format=weights_format)  # type: ignore[arg-type]
    images = torch.randn(2, 8, 12, 3)

    ours = ImageClassifier.from_preset(tmp_path / "ours")

    torch.testing.assert_close(ours.logits(images), theirs.logits(images), atol=1e-6, rtol=0)
    assert torch.equal(ours.preprocess(IMAGE), theirs.preprocess(IMAGE))
    assert ours.labels == LABELS


def test_saving_over_transformers_preprocessing_replaces_it(
    keras_preset: Path, transformers_preset: Path, tmp_path: Path
) -> None:
    ImageClassifier.from_preset(transformers_preset).save_to_preset(tmp_path / "ours")
    classifier = ImageClassifier.from_preset(keras_preset)
    classifier.save_to_preset(tmp_path / "ours")

    assert ImageClassifier.from_preset(tmp_path / "ours").converter == classifier.converter


def test_a_bare_backbone_is_no_classifier(keras_preset: Path, tmp_path: Path) -> None:
    with pytest.raises(PresetFileError, match=r"without a classifier: .*no classifier\.weight"):
        ImageClassifier.from_preset(saved(bare_oracle(), tmp_path / "theirs"))

    (keras_preset / "task.json").unlink()
    with pytest.raises(PresetFileError, match=r"without a head: there is no task\.json"):
        ImageClassifier.from_preset(keras_preset)


def test_another_task_is_no_classifier(keras_preset: Path) -> None:
    task = json.loads((keras_preset / "task.json").read_text())
    task["registered_name"] = "keras_hub>FNetTextClassifier"
    (keras_preset / "task.json").write_text(json.dumps(task))

    with pytest.raises(PresetFileError, match="FNetTextClassifier; keras_hub>ViTImageClassifier"):
        ImageClassifier.from_preset(keras_preset)


def test_a_head_without_weights_is_refused(keras_preset: Path) -> None:
    (keras_preset / "task.weights.h5").unlink()

    with pytest.raises(PresetFileError, match=r"task\.safetensors is missing"):
        ImageClassifier.from_preset(keras_preset)


def test_a_head_of_another_shape_is_refused(keras_preset: Path) -> None:
    change(keras_preset / "task.json", num_classes=4)

    with pytest.raises(WeightsError, match=r"layers/dense/vars/0 is \[8, 3\], for \[4, 8\]"):
        ImageClassifier.from_preset(keras_preset)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ({"size": 224}, r"prepared as \[224, 224, 3\], the backbone takes \[8, 12, 3\]"),
        ({"size": {"shortest_edge": 8}}, r"preprocessor_config\.json is malformed"),
        ({"size": {"height": 8, "width": 12}, "do_center_crop": True}, "do_center_crop"),
    ],
)
def test_preprocessing_that_cannot_fit_is_refused(
    transformers_preset: Path, processor: dict[str, object], message: str
) -> None:
    (transformers_preset / "preprocessor_config.json").write_text(json.dumps(processor))

    with pytest.raises(PresetFileError, match=message):
        ImageClassifier.from_preset(transformers_preset)


def test_two_channels_are_no_images(tmp_path: Path) -> None:
    saved(classifying_oracle(num_channels=2), tmp_path)

    with pytest.raises(PresetFileError, match="1 or 3 channels, the backbone takes 2"):
        ImageClassifier.from_preset(tmp_path)
