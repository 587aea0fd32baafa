"""Handles that need no network: names, paths, and what is malformed."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import PickleError, PresetError, PresetFileError, UnknownPresetError
from models.presets import PRESETS
from models.presets.handles import Part, fetch, fetch_lora


@pytest.mark.parametrize("part", list(Part))
def test_a_built_in_name_gives_its_directory(part: Part) -> None:
    assert fetch("vit_shapes", part) == Path(PRESETS["vit_shapes"].handle)


def test_a_built_in_name_wins_over_a_directory_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vit_shapes").mkdir()
    monkeypatch.chdir(tmp_path)

    assert fetch("vit_shapes") == Path(PRESETS["vit_shapes"].handle)
    assert fetch("./vit_shapes") == Path("vit_shapes")
    assert fetch(Path("vit_shapes")) == Path("vit_shapes")


def test_a_directory_is_given_as_it_is(tmp_path: Path) -> None:
    assert fetch(tmp_path) == tmp_path
    assert fetch(str(tmp_path)) == tmp_path


def test_a_safetensors_file_is_given_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "flux1-dev.safetensors"
    file.touch()

    assert fetch(file) == file


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "flux1-dev.ckpt"
    file.touch()

    with pytest.raises(PickleError, match=r"flux1-dev\.ckpt is a pickle"):
        fetch(file)


@pytest.mark.parametrize("preset", ["", "vit_shape", "s3://bucket/preset", "/no/such/place"])
def test_an_unknown_preset_lists_what_is_allowed(preset: str) -> None:
    with pytest.raises(UnknownPresetError, match="unknown: a preset is one of") as caught:
        fetch(preset)

    message = str(caught.value)
    assert repr(preset) in message
    for form in ("vit_shapes", "kaggle://ORG", "hf://ORG", "modelscope://ORG", "a directory"):
        assert form in message


@pytest.mark.parametrize(
    "handle",
    [
        "hf://",
        "hf://name",
        "hf://org/",
        "hf://org/name/more",
        "hf://org/name@",
        "hf://org/-name",
        "HF://org/name/more",
        "kaggle://org/model/keras",
        "kaggle://org/model/keras/variant/latest",
        "kaggle://org/model/keras/variant/0",
        "kaggle://org/model/keras/variant/1/more",
        "kaggle://org//keras/variant",
        "kaggle://org/../keras/variant",
        "kaggle://org/model/chainer/variant",
        "modelscope://name",
        "modelscope://org/name@",
        "modelscope://org/name/more",
    ],
)
def test_a_malformed_handle_is_told_its_form(handle: str) -> None:
    with pytest.raises(PresetError, match="is malformed") as caught:
        fetch(handle)

    assert handle in str(caught.value)
    assert type(caught.value) is PresetError


@pytest.mark.parametrize(
    ("handle", "package"),
    [
        ("hf://org/name", "huggingface_hub"),
        ("kaggle://org/model/keras/variant", "kagglehub"),
        ("modelscope://org/name", "modelscope_hub"),
    ],
)
def test_a_client_that_is_not_installed_is_named(
    handle: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("models.presets.hubs.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(PresetError, match=f"pip install {package.replace('_', '-')}"):
        fetch(handle)


def test_resolving_a_handle_needs_no_torch() -> None:
    code = "import sys; from models.presets.handles import fetch; fetch('vit_shapes'); "
    code += "assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_path_that_is_too_long_is_named() -> None:
    with pytest.raises(PresetFileError, match=r"'xxx.* cannot be read"):
        fetch("x" * 100_000)


@pytest.mark.parametrize("preset", [None, 5, b"vit_shapes", ["vit_shapes"]])
def test_what_is_no_name_is_refused(preset: object) -> None:
    with pytest.raises(TypeError, match="a string or a Path is allowed"):
        fetch(preset)  # type: ignore[arg-type]


def test_a_lora_on_the_disk_is_given_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "ink.safetensors"
    file.touch()
    assert fetch_lora(str(file)) == file
    assert fetch_lora(str(tmp_path)) == tmp_path


def test_a_lora_that_is_not_there_says_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(
        PresetFileError, match=r"does not exist; a LoRA is a safetensors file, .*hf:"
    ):
        fetch_lora(str(tmp_path / "ink.safetensors"))
    with pytest.raises(PresetFileError, match="s3:/a/b does not exist"):
        fetch_lora("s3://a/b")
    with pytest.raises(PickleError, match=r"ink\.pt is a pickle"):
        fetch_lora("ink.pt")


def test_a_lora_handle_without_a_repository_is_malformed() -> None:
    with pytest.raises(PresetError, match="the form is hf://ORG/NAME"):
        fetch_lora("hf://org")
