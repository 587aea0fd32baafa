"""Small ViTs of transformers with random values in every weight, and directories it wrote."""

from pathlib import Path

from transformers import ViTConfig, ViTForImageClassification, ViTModel

from tests.models.random_weights import randomise

IMAGE_SIZE = (8, 12)  # height, width
LABELS = ("cat", "dog", "eel")


def config_of(**changes: object) -> ViTConfig:
    arguments: dict[str, object] = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "image_size": IMAGE_SIZE,
        "patch_size": 4,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }
    return ViTConfig(**(arguments | changes))


def bare_oracle(has_pooler: bool = True, **changes: object) -> ViTModel:
    oracle = ViTModel(config_of(**changes), add_pooling_layer=has_pooler)
    randomise(oracle, seed=1)
    return oracle.eval()


def classifying_oracle(**changes: object) -> ViTForImageClassification:
    oracle = ViTForImageClassification(config_of(**changes))
    randomise(oracle, seed=2)
    return oracle.eval()


def saved(oracle: ViTModel | ViTForImageClassification, directory: Path) -> Path:
    oracle.save_pretrained(directory)
    return directory
