"""`modelscope://` handles against a loopback hub, through the real client."""

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
    hubs.add("modelscope:org/backbone", Repository(PRESET))

    directory = client.fetch("modelscope://org/backbone")

    assert names_in(directory) == {"config.json", "model.weights.h5"}
    assert (directory / "model.weights.h5").read_bytes() == PRESET["model.weights.h5"]


def test_a_pipeline_is_all_that_its_task_reads(hubs: Loopback, client: Client) -> None:
    hubs.add("modelscope:org/pipeline", Repository(PRESET))

    fetched = names_in(client.fetch("ModelScope://org/pipeline", Part.PIPELINE))

    assert fetched == PRESET.keys() - {"README.md"}


def test_a_file_that_was_replaced_since_is_downloaded_again(hubs: Loopback, client: Client) -> None:
    repository = hubs.add("modelscope:org/moved", Repository(PRESET))
    client.fetch("modelscope://org/moved")
    newer = PRESET["model.weights.h5"][::-1]  # of the same size
    repository.files = PRESET | {"model.weights.h5": newer}
    repository.committed_s = 4_000_000_000

    directory = client.fetch("modelscope://org/moved")

    assert (directory / "model.weights.h5").read_bytes() == newer
    assert repository.num_downloads["config.json"] == 1  # hashed, and found to be the same


def test_a_revision_has_its_own_files(hubs: Loopback, client: Client) -> None:
    older = {"config.json": b"[]", "model.weights.h5": b"older"}
    hubs.add("modelscope:org/revisions", Repository(PRESET, revisions={"v1": older}))

    directory = client.fetch("modelscope://org/revisions@v1")

    assert (directory / "model.weights.h5").read_bytes() == b"older"


def test_a_second_fetch_downloads_nothing(hubs: Loopback, client: Client) -> None:
    repository = hubs.add("modelscope:org/twice", Repository(PRESET))

    assert client.fetch("modelscope://org/twice") == client.fetch("modelscope://org/twice")

    assert set(repository.num_downloads.values()) == {1}


@pytest.mark.parametrize("handle", ["modelscope://org/no", "modelscope://org/old@v9"])
def test_what_is_not_there_is_unknown(hubs: Loopback, client: Client, handle: str) -> None:
    hubs.add("modelscope:org/old", Repository(PRESET))

    error, message = client.fail(handle)

    assert error == "UnknownPresetError"
    assert f"{handle}: ModelScope has no such repository" in message


def test_a_gated_model_asks_for_access_and_token(
    hubs: Loopback, client: Client, client_with_token: Client
) -> None:
    hubs.add("modelscope:org/gated", Repository(PRESET, needs_token=True))

    error, message = client.fail("modelscope://org/gated")

    assert error == "AccessError"
    assert "ask for it" in message
    assert "MODELSCOPE_API_TOKEN" in message
    assert client_with_token.fetch("modelscope://org/gated").is_dir()


def test_a_download_that_breaks_off_is_resumed(hubs: Loopback, client: Client) -> None:
    repository = Repository(PRESET, breaks_off={"model.weights.h5": 60_000})
    hubs.add("modelscope:org/broken", repository)

    directory = client.fetch("modelscope://org/broken")

    assert (directory / "model.weights.h5").read_bytes() == PRESET["model.weights.h5"]
    assert repository.num_downloads["model.weights.h5"] == 2


def test_weights_with_another_digest_are_refused_and_deleted(
    hubs: Loopback, client: Client
) -> None:
    repository = hubs.add("modelscope:org/damaged", Repository(PRESET))
    repository.sends_instead["model.weights.h5"] = PRESET["model.weights.h5"][::-1]

    error, _ = client.fail("modelscope://org/damaged")
    repository.sends_instead.clear()
    directory = client.fetch("modelscope://org/damaged")

    assert error == "DigestError"
    assert (directory / "model.weights.h5").read_bytes() == PRESET["model.weights.h5"]


@pytest.mark.parametrize("version", ["", "@v1"])
def test_without_network_the_cache_is_enough(
    hubs: Loopback, client: Client, client_without_network: Client, version: str
) -> None:
    hubs.add("modelscope:org/warm", Repository(PRESET, revisions={"v1": PRESET}))
    handle = f"modelscope://org/warm{version}"

    directory = client.fetch(handle, Part.PIPELINE)

    assert client_without_network.fetch(handle) == directory
    assert client_without_network.fetch(handle, Part.PIPELINE) == directory


def test_without_network_an_empty_cache_is_said(client_without_network: Client) -> None:
    error, message = client_without_network.fail("modelscope://org/cold")

    assert error == "OfflineError"
    assert "modelscope://org/cold" in message


def test_without_network_half_a_download_is_not_enough(
    hubs: Loopback, client: Client, client_without_network: Client
) -> None:
    shards = {f"model_0000{i}.weights.h5": os.urandom(50_000) for i in (0, 1)}
    files = {"config.json": b"{}", "model.weights.json": b"{}"} | shards
    broken = Repository(files, sends_instead={"model_00001.weights.h5": b"too short"})
    hubs.add("modelscope:org/half", broken)
    client.fail("modelscope://org/half")

    error, _ = client_without_network.fail("modelscope://org/half")

    assert error == "OfflineError"
