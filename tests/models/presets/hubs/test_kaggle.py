"""`kaggle://` handles against a loopback hub, through the real client."""

import os
from pathlib import Path

import pytest

from models.presets.handles import Part
from tests.models.presets.hubs.conftest import Client
from tests.models.presets.hubs.loopback import Loopback, Repository

PRESET = {
    "config.json": b"{}",
    "metadata.json": b"{}",
    "task.json": b"{}",
    "assets/tokenizer/vocabulary.spm": b"words",
    "task.weights.h5": b"head",
    "model.weights.h5": os.urandom(100_000),
    "README.md": b"read me",
}


def names_in(directory: Path) -> set[str]:
    files = (file for file in directory.rglob("*") if file.is_file())
    return {file.relative_to(directory).as_posix() for file in files}


def test_a_backbone_is_its_configuration_and_weights(hubs: Loopback, client: Client) -> None:
    hubs.add("kaggle:org/vit/keras/backbone", Repository(PRESET))

    directory = client.fetch("kaggle://org/vit/keras/backbone")

    assert names_in(directory) == {"config.json", "model.weights.h5"}
    assert (directory / "model.weights.h5").read_bytes() == PRESET["model.weights.h5"]


def test_a_pipeline_is_all_that_its_task_reads(hubs: Loopback, client: Client) -> None:
    hubs.add("kaggle:org/vit/keras/pipeline", Repository(PRESET))

    fetched = names_in(client.fetch("Kaggle://org/vit/keras/pipeline", Part.PIPELINE))

    assert fetched == PRESET.keys() - {"README.md"}


def test_a_second_fetch_downloads_nothing(hubs: Loopback, client: Client) -> None:
    repository = hubs.add("kaggle:org/vit/keras/twice", Repository(PRESET))

    without_version = client.fetch("kaggle://org/vit/keras/twice")

    assert client.fetch("kaggle://org/vit/keras/twice/2") == without_version
    assert set(repository.num_downloads.values()) == {1}


@pytest.mark.parametrize("handle", ["kaggle://org/vit/keras/no", "kaggle://org/vit/keras/old/1"])
def test_what_is_not_there_is_unknown(hubs: Loopback, client: Client, handle: str) -> None:
    hubs.add("kaggle:org/vit/keras/old", Repository(PRESET))

    error, message = client.fail(handle)

    assert error == "UnknownPresetError"
    assert f"{handle}: Kaggle has no such model" in message


def test_a_gated_model_asks_for_terms_and_token(
    hubs: Loopback, client: Client, client_with_token: Client
) -> None:
    hubs.add("kaggle:org/vit/keras/gated", Repository(PRESET, needs_token=True))

    error, message = client.fail("kaggle://org/vit/keras/gated")

    assert error == "AccessError"
    assert "accept the terms" in message
    assert "KAGGLE_API_TOKEN" in message
    assert client_with_token.fetch("kaggle://org/vit/keras/gated").is_dir()


def test_a_download_that_breaks_off_is_resumed_by_the_next_fetch(
    hubs: Loopback, client: Client
) -> None:
    repository = Repository(PRESET, breaks_off={"model.weights.h5": 60_000})
    hubs.add("kaggle:org/vit/keras/broken", repository)

    error, message = client.fail("kaggle://org/vit/keras/broken")
    directory = client.fetch("kaggle://org/vit/keras/broken")

    assert error == "DownloadError"
    assert "try again, it continues there" in message
    assert (directory / "model.weights.h5").read_bytes() == PRESET["model.weights.h5"]


def test_weights_with_another_digest_are_refused_and_deleted(
    hubs: Loopback, client: Client
) -> None:
    repository = hubs.add("kaggle:org/vit/keras/damaged", Repository(PRESET))
    repository.sends_instead["model.weights.h5"] = b"damaged"

    error, _ = client.fail("kaggle://org/vit/keras/damaged")
    repository.sends_instead.clear()
    directory = client.fetch("kaggle://org/vit/keras/damaged")

    assert error == "DigestError"
    assert (directory / "model.weights.h5").read_bytes() == PRESET["model.weights.h5"]


@pytest.mark.parametrize("version", ["", "/2"])
def test_without_network_the_cache_is_enough(
    hubs: Loopback, client: Client, client_without_network: Client, version: str
) -> None:
    hubs.add("kaggle:org/vit/keras/warm", Repository(PRESET))
    handle = f"kaggle://org/vit/keras/warm{version}"

    directory = client.fetch(handle, Part.PIPELINE)

    assert client_without_network.fetch(handle) == directory
    assert client_without_network.fetch(handle, Part.PIPELINE) == directory


def test_without_network_an_empty_cache_is_said(client_without_network: Client) -> None:
    error, message = client_without_network.fail("kaggle://org/vit/keras/cold")

    assert error == "OfflineError"
    assert "kaggle://org/vit/keras/cold" in message


def test_without_network_half_a_download_is_not_enough(
    hubs: Loopback, client: Client, client_without_network: Client
) -> None:
    shards = {f"model_0000{i}.weights.h5": os.urandom(50_000) for i in (0, 1)}
    files = {"config.json": b"{}", "model.weights.json": b"{}"} | shards
    broken = Repository(files, breaks_off={"model_00001.weights.h5": 10_000})
    hubs.add("kaggle:org/vit/keras/half", broken)
    client.fail("kaggle://org/vit/keras/half/2")

    error, _ = client_without_network.fail("kaggle://org/vit/keras/half/2")

    assert error == "OfflineError"
