"""Reading `model.weights.h5` and its shards, and what is refused there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from models import Backbone
from models.checkpoints.preset_files import KERAS_INDEX_FILE, KERAS_WEIGHTS_FILE
from models.errors import PresetFileError, WeightsError
from models.keras.files import KerasFiles
from tests.models.keras.recorded import CASES

Edit = Callable[[h5py.File], None]
KERNEL = "layers/dense/vars/0"


@pytest.fixture
def fnet(tmp_path: Path) -> Path:
    return _copy("fnet_base", tmp_path)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return _copy("fnet_sharded", tmp_path)


def _copy(case: str, directory: Path) -> Path:
    return Path(shutil.copytree(CASES / case / "preset", directory / "preset"))


def edit(preset: Path, change: Edit, file: str = KERAS_WEIGHTS_FILE) -> None:
    with h5py.File(preset / file, "r+") as weights:
        change(weights)


def store_anew(weights: h5py.File, name: str, **how: object) -> None:
    values = weights[name][()]
    del weights[name]
    weights.create_dataset(name, data=values, **how)


def test_matrices_are_views_of_what_was_read(fnet: Path) -> None:
    for name, parameter in Backbone.from_preset(fnet).named_parameters():
        if parameter.ndim == 2 and "embedding" not in name:
            assert parameter.T.is_contiguous(), name


def test_compressed_chunks_are_read_too(fnet: Path) -> None:
    expected = Backbone.from_preset(fnet).state_dict()
    edit(fnet, lambda weights: store_anew(weights, KERNEL, compression="gzip"))
    got = Backbone.from_preset(fnet).state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_a_whole_file_wins_over_shards(fnet: Path) -> None:
    (fnet / KERAS_INDEX_FILE).write_text('{"weight_map": {"/layers/dense/vars": "missing.h5"}}')
    with KerasFiles.in_directory(fnet) as weights:
        assert weights.where == fnet / KERAS_WEIGHTS_FILE


def test_the_state_of_dropout_and_optimizer_is_passed_over(fnet: Path) -> None:
    def train(weights: h5py.File) -> None:
        weights["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        weights["optimizer/vars/0"] = 7

    edit(fnet, train)
    Backbone.from_preset(fnet)


def test_what_is_left_over_is_named(fnet: Path) -> None:
    edit(fnet, lambda weights: weights.create_dataset("layers/dense_7/vars/0", data=[1.0]))
    with pytest.raises(WeightsError, match="left over: layers/dense_7/vars/0"):
        Backbone.from_preset(fnet)


def test_what_is_missing_is_named(fnet: Path) -> None:
    edit(fnet, lambda weights: weights.pop(KERNEL))
    with pytest.raises(WeightsError, match=f"missing: {KERNEL}"):
        Backbone.from_preset(fnet)


def test_a_wrong_shape_is_named(fnet: Path) -> None:
    def widen(weights: h5py.File) -> None:
        del weights[KERNEL]
        weights[KERNEL] = np.zeros((3, 4), np.float32)

    edit(fnet, widen)
    with pytest.raises(WeightsError, match=rf"of a wrong shape: {KERNEL} is \[3, 4\]"):
        Backbone.from_preset(fnet)


def test_a_norm_of_a_wrong_width_is_named(tmp_path: Path) -> None:
    flux = _copy("flux_plain", tmp_path)
    norm = "layers/double_stream_block/image_norm1/vars/0"

    def widen(weights: h5py.File) -> None:
        del weights[norm]
        weights[norm] = np.ones(3, np.float32)

    edit(flux, widen)
    with pytest.raises(WeightsError, match=norm):
        Backbone.from_preset(flux)


def test_no_weights_at_all_are_a_missing_file(fnet: Path) -> None:
    (fnet / KERAS_WEIGHTS_FILE).unlink()
    with pytest.raises(PresetFileError, match="missing"):
        KerasFiles.in_directory(fnet)


@pytest.mark.parametrize("content", [b"", b"not HDF5"])
def test_a_file_of_another_format_is_refused(fnet: Path, content: bytes) -> None:
    (fnet / KERAS_WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(PresetFileError, match=KERAS_WEIGHTS_FILE):
        Backbone.from_preset(fnet)


def test_a_file_cut_short_is_refused(fnet: Path) -> None:
    whole = (fnet / KERAS_WEIGHTS_FILE).read_bytes()
    (fnet / KERAS_WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PresetFileError, match=KERAS_WEIGHTS_FILE):
        Backbone.from_preset(fnet)


def test_an_array_in_another_file_is_refused(fnet: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))

    def lead_out(weights: h5py.File) -> None:
        del weights[KERNEL]
        weights.create_dataset(KERNEL, (4, 4), "f4", external=[(str(secret), 0, 64)])

    edit(fnet, lead_out)
    with pytest.raises(PresetFileError, match="not an array in this file"):
        Backbone.from_preset(fnet)


def test_a_link_to_another_file_is_not_followed(fnet: Path) -> None:
    def lead_out(weights: h5py.File) -> None:
        del weights[KERNEL]
        other = CASES / "fnet_base" / "preset" / KERAS_WEIGHTS_FILE
        weights[KERNEL] = h5py.ExternalLink(str(other), KERNEL)

    edit(fnet, lead_out)
    with pytest.raises(WeightsError, match=f"missing: {KERNEL}"):
        Backbone.from_preset(fnet)


def test_integers_are_no_weights(fnet: Path) -> None:
    def to_integers(weights: h5py.File) -> None:
        values = weights[KERNEL][()]
        del weights[KERNEL]
        weights[KERNEL] = values.astype(np.int32)

    edit(fnet, to_integers)
    with pytest.raises(PresetFileError, match=f"{KERNEL} is of dtype <i4"):
        Backbone.from_preset(fnet)


@pytest.mark.parametrize("name", ["../model_00000.weights.h5", "/etc/model.weights.h5", ".."])
def test_a_shard_outside_the_preset_is_refused(sharded: Path, name: str) -> None:
    index = json.loads((sharded / KERAS_INDEX_FILE).read_text())
    index["weight_map"]["/layers/embedding/vars"] = ["model_00001.weights.h5", name]
    (sharded / KERAS_INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(PresetFileError, match="not a file beside it"):
        Backbone.from_preset(sharded)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model_00002.weights.h5").unlink()
    with pytest.raises(PresetFileError, match=r"model_00002\.weights\.h5 is missing"):
        Backbone.from_preset(sharded)


def test_a_variable_in_two_shards_is_refused(sharded: Path) -> None:
    edit(sharded, lambda w: w.create_dataset(KERNEL, data=[1.0]), "model_00000.weights.h5")
    with pytest.raises(PresetFileError, match=f"holds {KERNEL} once more"):
        Backbone.from_preset(sharded)


def test_an_empty_group_in_an_earlier_shard_does_no_harm(sharded: Path) -> None:
    edit(sharded, lambda w: w.require_group("layers/dense/vars"), "model_00000.weights.h5")
    Backbone.from_preset(sharded)
