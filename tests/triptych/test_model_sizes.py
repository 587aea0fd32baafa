"""About how large a model is, before it is loaded."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from models.presets import PRESETS
from models.presets.table import BUNDLED_DIRECTORY
from triptych.model_sizes import stored_bytes
from worker.contract.jobs import Task
from worker.model_specs import ModelSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LISTED = {  # a diffusers repository that repeats its transformer at its root
    "model_index.json": 500,
    "flux1-dev.safetensors": 24_000,
    "transformer/config.json": 300,
    "transformer/diffusion_pytorch_model.safetensors": 23_000,
    "text_encoder/model.safetensors": 200,
    "text_encoder_2/model.safetensors": 9_000,
    "vae/diffusion_pytorch_model.safetensors": 100,
    "scheduler/scheduler_config.json": 10,
}


def spec(handle: str | None = None, name: str = "own", **fields: object) -> ModelSpec:
    task = None if handle is None else Task.IMAGES
    return ModelSpec.model_validate({"name": name, "handle": handle, "task": task, **fields})


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face's client."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def write_listing(hub_cache: Path, repository: str) -> None:
    """What the client keeps of a repository once it has fetched any file of it."""
    folder = hub_cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    (folder / "trees").mkdir()
    files = {name: {"size": size, "blob_id": "0" * 40} for name, size in LISTED.items()}
    listing = json.dumps({"format_version": 1, "files": files})
    (folder / "trees" / f"{COMMIT}.json").write_text(listing, encoding="utf-8")


@pytest.mark.parametrize("name", ["flux_shapes", "vit_shapes", "f_net_shapes"])
def test_a_directory_is_as_large_as_the_files_that_are_read(name: str) -> None:
    weights = sum(f.stat().st_size for f in (BUNDLED_DIRECTORY / name).rglob("*.safetensors"))
    assert weights <= (stored_bytes(spec(name=name)) or 0) < weights + 10**6


def test_a_single_file_is_as_large_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "flux1-dev.safetensors"
    file.write_bytes(b"0" * 1234)
    assert stored_bytes(spec(str(file))) == 1234


@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_a_hubs_model_is_as_large_as_its_listing_says_before_it_is_fetched(
    hub_cache: Path, revision: str
) -> None:
    write_listing(hub_cache, "someone/flux-merge")
    read = sum(LISTED.values()) - LISTED["flux1-dev.safetensors"]
    assert stored_bytes(spec(f"hf://someone/flux-merge{revision}")) == read


@pytest.mark.usefixtures("hub_cache")
def test_a_built_in_model_that_was_never_fetched_is_estimated_from_its_parameters() -> None:
    parameters = PRESETS["flux_dev"].num_parameters
    assert stored_bytes(spec(name="flux_dev")) == 2 * parameters
    assert stored_bytes(spec(name="flux_dev", dtype="float32")) == 4 * parameters
    assert stored_bytes(spec(PRESETS["flux_dev"].handle)) == 2 * parameters
    vit = "vit_base_patch16_224_imagenet"  # run in float32 unless the configuration says otherwise
    assert stored_bytes(spec(name=vit)) == 4 * PRESETS[vit].num_parameters
    assert stored_bytes(spec(name=vit, dtype="int8")) == 4 * PRESETS[vit].num_parameters


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize(
    "handle",
    ["hf://someone/never-fetched", "kaggle://a/b/keras/c", "modelscope://a/b", "./not-there"],
)
def test_of_other_models_nothing_is_known(handle: str) -> None:
    assert stored_bytes(spec(handle)) is None
