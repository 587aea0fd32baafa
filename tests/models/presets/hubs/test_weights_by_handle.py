"""From a handle to a backbone with the writer's weights, through the real clients."""

from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from models import Backbone
from tests.models.flux.conftest import tiny_pipeline
from tests.models.keras.recorded import CASES
from tests.models.presets.hubs.conftest import Client
from tests.models.presets.hubs.digests import digest_of
from tests.models.presets.hubs.loopback import Loopback, Repository
from tests.models.random_weights import randomise

HANDLES = [
    ("kaggle:org/f_net/keras/recorded", "FNetBackbone"),
    ("hf:org/recorded", "FNetBackbone"),
    ("modelscope:org/vit", "ViTBackbone"),
    ("hf:org/vit", "ViTBackbone"),
    ("hf:org/flux", "FluxBackbone"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories by KerasHub, transformers and diffusers, by the class of their backbones."""
    vit, flux = tmp_path_factory.mktemp("vit"), tmp_path_factory.mktemp("flux")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    model = ViTForImageClassification(ViTConfig(num_hidden_layers=2, image_size=32, **sizes))
    randomise(model)
    model.save_pretrained(vit)
    tiny_pipeline(has_guidance=True, use_dynamic_shifting=True).save_pretrained(flux)
    keras = CASES / "fnet_bfloat16_sharded" / "preset"
    return {"FNetBackbone": keras, "ViTBackbone": vit, "FluxBackbone": flux}


@pytest.mark.parametrize(("name", "class_name"), HANDLES)
def test_a_handle_gives_the_weights_of_its_directory(
    hubs: Loopback, client: Client, written: dict[str, Path], name: str, class_name: str
) -> None:
    directory = written[class_name]
    files = (file for file in directory.rglob("*") if file.is_file())
    held = {file.relative_to(directory).as_posix(): file.read_bytes() for file in files}
    hubs.add(name, Repository(held))

    loaded = client.load(name.replace(":", "://", 1))

    assert loaded == {
        "class": class_name,
        "digest": digest_of(Backbone.from_preset(directory)),
    }


def test_without_weights_only_the_configuration_comes(
    hubs: Loopback, client: Client, written: dict[str, Path]
) -> None:
    config = (written["ViTBackbone"] / "config.json").read_bytes()
    repository = hubs.add("hf:org/bare", Repository({"config.json": config}))

    loaded = client.load("hf://org/bare", load_weights=False)

    assert loaded["class"] == "ViTBackbone"
    assert repository.num_downloads == {"config.json": 1}
