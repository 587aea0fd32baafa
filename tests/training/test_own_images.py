"""Images of the image model for the classifier to learn from."""

import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from models.flux.latents import patchify
from models.presets import get_preset
from training import image_flow
from training.autoencoder import encode_images
from training.correction import Painted
from training.own_images import load_own_images
from training.shapes_world import Item, Layout, Scene, complete, render
from training.vit_images import SEVERAL, SIDE

SAID = (
    Scene(Layout.ONE, (Item("red", "star"),)),
    Scene(Layout.ROW, (Item("blue", "square"), Item("black", "ring"))),
)


def painted(scenes: tuple[Scene, ...]) -> Painted:
    """A round in which these came out right, and nothing wrong."""
    rng = random.Random(1)
    images = [render(complete(said, rng), rng, image_flow.SIDE) for said in scenes]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    vae = Path(get_preset("flux_shapes").handle) / "vae"
    autoencoder = AutoencoderKL.from_pretrained(vae, low_cpu_mem_usage=False)
    right = patchify(encode_images(autoencoder, pixels.permute(0, 3, 1, 2)).float()).half()
    others = {field.name: torch.zeros(0) for field in fields(Painted)}
    return Painted(**(others | {"right": right}))


def test_an_image_has_the_name_of_what_it_shows(tmp_path: Path) -> None:
    file = tmp_path / "painted_0.pt"
    of_round = painted(SAID)
    torch.save([getattr(of_round, field.name) for field in fields(Painted)], file)
    star, pair = load_own_images([file], tmp_path)
    assert (star.label, pair.label) == ("red star", SEVERAL)
    assert star.image.size == (SIDE, SIDE)
    assert pair.radius < star.radius
    file.unlink()
    assert load_own_images([file], tmp_path) == [star, pair]  # decoded once
