"""The table of built-in presets: every name with the parameter count that was published for it."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from models import Backbone, FluxBackbone, FNetBackbone, ViTBackbone
from models.errors import UnknownPresetError
from models.presets import BUNDLED_NAMES, PRESETS, Preset, get_preset

ROOT = Path(__file__).parents[3]

# ViT and FNet from KerasHub's pages.
PUBLISHED = {
    "flux_schnell": 11_891_178_560,
    "flux_dev": 11_901_408_320,
    "vit_base_patch16_224_imagenet": 85_798_656,
    "vit_base_patch16_384_imagenet": 86_090_496,
    "vit_base_patch32_384_imagenet": 87_528_192,
    "vit_large_patch16_224_imagenet": 303_301_632,
    "vit_large_patch16_384_imagenet": 303_690_752,
    "vit_large_patch32_384_imagenet": 305_607_680,
    "vit_base_patch16_224_imagenet21k": 85_798_656,
    "vit_base_patch32_224_imagenet21k": 87_455_232,
    "vit_large_patch16_224_imagenet21k": 303_301_632,
    "vit_large_patch32_224_imagenet21k": 305_510_400,
    "vit_huge_patch14_224_imagenet21k": 630_764_800,
    "f_net_base_en": 82_861_056,
    "f_net_large_en": 236_945_408,
}
VERSIONS = {
    **dict.fromkeys((name for name in PUBLISHED if name.endswith("_imagenet")), 4),
    "vit_base_patch32_384_imagenet": 3,
    "vit_large_patch32_384_imagenet": 3,
    **dict.fromkeys((name for name in PUBLISHED if name.endswith("_imagenet21k")), 3),
}


def refuse(*_: object) -> NoReturn:
    raise AssertionError("a preset without its weights must not need the network")


@pytest.fixture(params=list(PRESETS.values()), ids=list(PRESETS))
def row(request: pytest.FixtureRequest) -> Preset:
    assert isinstance(request.param, Preset)
    return request.param


def test_a_preset_without_weights_has_exactly_the_published_parameters(
    row: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with torch.device("meta"):
        backbone = Backbone.from_preset(row.name, load_weights=False)
    num_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    assert type(backbone).__name__ == row.backbone_class
    assert num_parameters == row.num_parameters == PUBLISHED.get(row.name, row.num_parameters)


def test_every_published_preset_is_built_in() -> None:
    assert [name for name in PRESETS if name not in BUNDLED_NAMES] == list(PUBLISHED)


def test_flux_has_the_parameters_of_kerashub_but_those_of_its_norms() -> None:
    num_norms = 4 * 19 + 38 + 1  # of KerasHub, each with a gain and an offset of 3,072
    assert get_preset("flux_schnell").num_parameters == 11_891_885_120 - num_norms * 2 * 3072
    assert get_preset("flux_dev").num_parameters == 11_902_114_880 - num_norms * 2 * 3072


def test_vit_handles_are_kerashubs() -> None:
    handles = {name: get_preset(name).handle for name in VERSIONS}
    assert handles == {
        name: f"kaggle://keras/vit/keras/{name}/{version}" for name, version in VERSIONS.items()
    }


@pytest.mark.parametrize(
    ("name", "handle"),
    [
        ("f_net_base_en", "kaggle://keras/f_net/keras/f_net_base_en/3"),
        ("f_net_large_en", "kaggle://keras/f_net/keras/f_net_large_en/3"),
        ("flux_schnell", "hf://black-forest-labs/FLUX.1-schnell"),
        ("flux_dev", "hf://black-forest-labs/FLUX.1-dev"),
    ],
)
def test_other_handles_are_their_publishers(name: str, handle: str) -> None:
    assert get_preset(name).handle == handle


def test_a_bundled_preset_lies_in_the_package_and_no_other_does(row: Preset) -> None:
    assert row.is_bundled == (row.name in BUNDLED_NAMES) == Path(row.handle).is_dir()


def test_presets_of_imagenet21k_have_no_head_to_classify_with(row: Preset) -> None:
    assert (row.task is None) == row.name.endswith("_imagenet21k")


def test_each_family_lists_its_own_presets() -> None:
    flux, vit, f_net = FluxBackbone.presets, ViTBackbone.presets, FNetBackbone.presets
    for presets, prefix in ((flux, "flux_"), (vit, "vit_"), (f_net, "f_net_")):
        assert list(presets) == [name for name in PRESETS if name.startswith(prefix)]
    assert Backbone.presets == PRESETS


def test_an_unknown_preset_is_refused_with_the_names_that_are_known() -> None:
    with pytest.raises(UnknownPresetError, match="'flux' is not one of f_net_base_en, f_net_large"):
        get_preset("flux")


def test_the_table_needs_no_torch() -> None:
    program = "import sys, models.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
