"""Let KerasHub record what the tests of this folder compare with; run by hand.

    pip install "triptych[keras]"
    KERAS_BACKEND=torch python -m tests.models.vit.record

KerasHub 0.32.0, Keras 3.15.1. `norm_mean_and_norm_std`, a form that only older versions have, was
recorded with KerasHub 0.20.0 and the same Keras, and is kept.
"""

import json
from pathlib import Path

import keras
import numpy as np
from keras_hub.layers import ViTImageConverter
from keras_hub.models import ViTBackbone, ViTImageClassifier, ViTImageClassifierPreprocessor

RECORDED = Path(__file__).parent / "recorded"
SIZES = [(1, 1), (2, 3), (8, 12), (10, 31), (29, 11), (16, 17), (61, 47), (1, 300), (300, 1)]
LONG_SIZES = [(1, 5000), (5000, 1)]  # height, width; padding these would take too long
CONFIGS_FOR_LONG = ("crop_", "squeeze_")
CONFIG_FOR_SMALL = "any_size"
OLDER_CONFIG = "norm_mean_and_norm_std"


def record_converters() -> None:
    generator = np.random.default_rng(3)
    images = {
        f"{height}x{width}": generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for height, width in SIZES + LONG_SIZES
    }
    recorded = np.load(RECORDED / "image_converter.npz")
    outputs = {name: recorded[name] for name in recorded if OLDER_CONFIG in name}
    for name, config in json.loads((RECORDED / "image_converter.json").read_text()).items():
        if name == OLDER_CONFIG:
            continue
        converter = ViTImageConverter(**config)
        for size, image in images.items():
            if "5000" in size and not name.startswith(CONFIGS_FOR_LONG):
                continue
            if name == CONFIG_FOR_SMALL and image.size > 200:
                continue
            converted = keras.ops.convert_to_numpy(converter(image))
            outputs[f"output/{name}/{size}"] = converted.astype(np.float32)
    outputs |= {f"picture/{size}": image for size, image in images.items()}
    np.savez_compressed(RECORDED / "image_converter.npz", **outputs)


def record_classifier() -> None:
    preprocessor = ViTImageClassifierPreprocessor(
        image_converter=ViTImageConverter(
            image_size=(8, 12),
            scale=1 / 127.5,
            offset=-1.0,
            crop_to_aspect_ratio=False,
            antialias=True,
        )
    )
    classifier = ViTImageClassifier(
        ViTBackbone((8, 12, 3), 4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=12),
        num_classes=3,
        preprocessor=preprocessor,
        pooling="gap",
        activation="softmax",
        dropout=0.5,
    )
    generator = np.random.default_rng(5)
    for weight in classifier.weights:
        centre = 1.0 if "gamma" in weight.path else 0.0
        if "seed" not in weight.path:
            weight.assign(centre + 0.3 * generator.standard_normal(weight.shape))
    classifier.save_to_preset(RECORDED / "gap_softmax")
    images = np.random.default_rng(6).standard_normal((2, 8, 12, 3)).astype(np.float32)
    output = keras.ops.convert_to_numpy(classifier(images, training=False))
    np.savez_compressed(RECORDED / "gap_softmax/case.npz", images=images, output=output)


if __name__ == "__main__":
    record_classifier()  # first: Keras numbers the names of what a process builds
    record_converters()
