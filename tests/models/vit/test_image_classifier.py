"""ImageClassifier: a preset with a head and labels, and the bundled `vit_shapes`."""

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from models import ViTBackbone
from models.errors import PresetFileError
from models.execution.execution import Execution
from models.load import load_pipeline
from models.vit.classification_head import ClassificationHead, TaskConfig
from models.vit.image_classifier import ImageClassifier
from models.vit.image_converter import ImageConverter, ImageConverterConfig
from tests.models.random_weights import randomise
from training.shapes_world import SHAPES, render, single
from training.vit_images import LABELS as BUNDLED_LABELS

LABELS = ("cat", "dog", "eel")


def classifier_of(task: TaskConfig) -> ImageClassifier:
    backbone = ViTBackbone((8, 8, 3), 4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=12)
    head = ClassificationHead(8, task)
    randomise(backbone)
    randomise(head, seed=1)
    converter = ImageConverterConfig(image_size=(8, 8), scale=1 / 127.5, offset=-1.0)
    return ImageClassifier(backbone.eval(), head.eval(), ImageConverter(converter), LABELS)


@pytest.fixture(params=[("token", None), ("gap", 5)], ids=["token", "gap with pre_logits"])
def classifier(request: pytest.FixtureRequest) -> ImageClassifier:
    pooling, intermediate_dim = request.param
    return classifier_of(
        TaskConfig(num_classes=3, pooling=pooling, intermediate_dim=intermediate_dim)
    )


@pytest.fixture
def preset(classifier: ImageClassifier, tmp_path: Path) -> Path:
    classifier.save_to_preset(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def bundled() -> ImageClassifier:
    return ImageClassifier.from_preset("vit_shapes")


def test_what_was_saved_comes_back(classifier: ImageClassifier, preset: Path) -> None:
    loaded = load_pipeline(preset)
    images = torch.randn(2, 8, 8, 3)

    assert isinstance(loaded, ImageClassifier)
    assert loaded.labels == LABELS
    assert loaded.converter == classifier.converter
    # H5 has matrices the other way round, and sums of another order
    torch.testing.assert_close(loaded.logits(images), classifier.logits(images), atol=1e-6, rtol=0)


def test_a_batch_equals_single_images(classifier: ImageClassifier) -> None:
    images = torch.randn(5, 8, 8, 3)

    alone = torch.cat([classifier.logits(image[None]) for image in images])

    torch.testing.assert_close(classifier.logits(images), alone, atol=1e-6, rtol=0)


def test_gap_is_the_mean_over_all_tokens_and_token_the_first() -> None:
    features = torch.randn(2, 5, 8)
    token = ClassificationHead(8, TaskConfig(num_classes=3, pooling="token"))
    gap = ClassificationHead(8, TaskConfig(num_classes=3, pooling="gap"))

    assert torch.equal(token(features), token.predictions(features[:, 0]))
    assert torch.equal(gap(features), gap.predictions(features.mean(dim=1)))


def test_the_task_file_nests_backbone_and_preprocessor(preset: Path) -> None:
    task = json.loads((preset / "task.json").read_text())["config"]

    assert task["backbone"] == json.loads((preset / "config.json").read_text())
    assert task["preprocessor"] == json.loads((preset / "preprocessor.json").read_text())
    converter = json.loads((preset / "image_converter.json").read_text())
    assert task["preprocessor"]["config"]["image_converter"] == converter


def test_too_few_labels_are_refused(preset: Path) -> None:
    (preset / "labels.json").write_text('["cat", "dog"]')

    with pytest.raises(PresetFileError, match="does not fit together: 2 labels for 3 classes"):
        ImageClassifier.from_preset(preset)


def test_images_of_another_shape_than_the_backbones_are_refused(
    classifier: ImageClassifier,
) -> None:
    converter = ImageConverter(ImageConverterConfig(image_size=(8, 9)))

    with pytest.raises(
        ValueError, match=r"prepared as \[8, 9, 3\], the backbone takes \[8, 8, 3\]"
    ):
        ImageClassifier(classifier.backbone, classifier.head, converter, LABELS)


@pytest.mark.parametrize("content", ["{}", "[1, 2, 3]", "no json"])
def test_labels_that_are_no_list_of_names_are_refused(preset: Path, content: str) -> None:
    (preset / "labels.json").write_text(content)

    with pytest.raises(PresetFileError, match=r"labels\.json"):
        ImageClassifier.from_preset(preset)


def test_safetensors_are_written_on_request_and_take_the_place_of_h5(
    classifier: ImageClassifier, preset: Path
) -> None:
    randomise(classifier.head, seed=7)
    classifier.save_to_preset(preset, weights_format="safetensors")
    images = torch.randn(2, 8, 8, 3)

    loaded = ImageClassifier.from_preset(preset)

    assert not list(preset.glob("*.h5"))
    assert torch.equal(loaded.logits(images), classifier.logits(images))


def test_a_backbone_with_channels_first_classifies_the_same_images(tmp_path: Path) -> None:
    last = classifier_of(TaskConfig(num_classes=3))
    first = ViTBackbone(
        (3, 8, 8), 4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=12,
        data_format="channels_first",
    )  # fmt: skip
    first.load_state_dict(last.backbone.state_dict())
    classifier = ImageClassifier(first.eval(), last.head, last.converter, LABELS)
    classifier.save_to_preset(tmp_path)
    images = torch.randn(2, 8, 8, 3)

    torch.testing.assert_close(
        ImageClassifier.from_preset(tmp_path).logits(images), last.logits(images)
    )


def test_dropout_is_for_training_alone() -> None:
    head = ClassificationHead(8, TaskConfig(num_classes=3, dropout=0.5))
    features = torch.randn(2, 5, 8)

    assert torch.equal(head.eval()(features), head.predictions(features[:, 0]))
    assert not torch.equal(head.train()(features), head.predictions(features[:, 0]))


def test_the_bundled_preset_knows_all_labels(bundled: ImageClassifier) -> None:
    assert bundled.labels == BUNDLED_LABELS


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bundled_preset_names_what_it_sees(bundled: ImageClassifier, shape: str) -> None:
    image = render(single("blue", shape, "large", "left", "white"), random.Random(7), 128)

    logits = bundled.logits(bundled.preprocess(image)[None])

    assert bundled.labels[int(logits.argmax())] == f"blue {shape}"


def test_a_large_photograph_is_preprocessed_to_the_presets_size(bundled: ImageClassifier) -> None:
    assert bundled.preprocess(Image.new("RGB", (1600, 900))).shape == (80, 80, 3)


def test_float8_changes_logits_a_little() -> None:
    classifier = ImageClassifier.from_preset("vit_shapes", dtype=torch.bfloat16)
    images = torch.rand(2, *classifier.backbone.image_shape)  # type: ignore[arg-type]
    expected = classifier.logits(images)
    classifier.execute(Execution(float8_products=True))
    assert 0 < (classifier.logits(images) - expected).norm() / expected.norm() < 0.1
