"""KerasHub itself loads the classifiers that we save; skipped where it is not installed.

    pip install "triptych[keras]"

or name a Python that has it in KERAS_HUB_PYTHON.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.vit.image_classifier import ImageClassifier
from tests.models.keras.recorded import CASES
from tests.models.keras.test_keras_hub_loads_back import PYTHON
from tests.models.vit.transformers_oracles import classifying_oracle, saved

TOLERANCE = 2e-5
ONE_GREY_LEVEL = 1.001 / 127.5
IMAGE = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="keras-hub is not installed"),
]


def assert_keras_hub_agrees(classifier: ImageClassifier, directory: Path, atol: float) -> None:
    """Save, let KerasHub load it, compare its logits and, to `atol`, its preprocessing."""
    classifier.save_to_preset(directory / "preset")
    images = torch.randn(2, 8, 12, 3)
    np.savez(directory / "inputs.npz", images=images.numpy(), image=IMAGE)
    program = Path(__file__).with_name("run_keras_hub.py")
    arguments = (directory / "preset", directory / "inputs.npz", directory / "outputs.npz")
    assert PYTHON is not None, "skipped without"
    done = subprocess.run(
        [PYTHON, program, *arguments],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = np.load(directory / "outputs.npz")
    np.testing.assert_allclose(classifier.logits(images), outputs["output"], 0, TOLERANCE)
    pixels = classifier.preprocess(Image.fromarray(IMAGE))
    np.testing.assert_allclose(pixels, outputs["pixels"], 0, atol)


def test_a_classifier_of_keras_hub_goes_back_to_it(tmp_path: Path) -> None:
    classifier = ImageClassifier.from_preset(CASES / "vit_classifier/preset")

    assert_keras_hub_agrees(classifier, tmp_path, atol=1e-6)


def test_a_classifier_of_transformers_goes_to_keras_hub(tmp_path: Path) -> None:
    theirs = saved(classifying_oracle(qkv_bias=False, layer_norm_eps=1e-6), tmp_path / "theirs")

    assert_keras_hub_agrees(ImageClassifier.from_preset(theirs), tmp_path, atol=ONE_GREY_LEVEL)
