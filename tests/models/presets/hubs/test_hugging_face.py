"""`hf://` handles against a loopback hub, through the real client."""

import os
from pathlib import Path

from models.presets.handles import Part
from tests.models.presets.hubs.conftest import Client
from tests.models.presets.hubs.loopback import Loopback, Repository

KERAS = {
    ".gitattributes": b"",
    "config.json": b"{}",
    "metadata.json": b"{}",
    "task.json": b"{}",
    "assets/tokenizer/vocabulary.spm": b"words",
    "task.weights.h5": b"head",
    "model.weights.h5": os.urandom(5000),
    "README.md": b"read me",
}
LARGE = os.urandom(100_000)


def names_in(directory: Path) -> set[str]:
    files = (file for file in directory.rglob("*") if file.is_file())
    return {file.relative_to(directory).as_posix() for file in files} - {".gitattributes"}


def test_a_backbone_is_its_configuration_and_weights(hubs: Loopback, client: Client) -> None:
    hubs.add("hf:org/backbone", Repository(KERAS))

    directory = client.fetch("hf://org/backbone")

    assert names_in(directory) == {"config.json", "model.weights.h5"}
    assert (directory / "model.weights.h5").read_bytes() == KERAS["model.weights.h5"]


def test_a_configuration_comes_without_weights(hubs: Loopback, client: Client) -> None:
    hubs.add("hf:org/config", Repository(KERAS))

    assert names_in(client.fetch("hf://org/config", Part.CONFIG)) == {"config.json"}


def test_a_pipeline_is_all_that_its_task_reads(hubs: Loopback, client: Client) -> None:
    hubs.add("hf:org/pipeline", Repository(KERAS))

    fetched = names_in(client.fetch("HF://org/pipeline", Part.PIPELINE))

    assert fetched == KERAS.keys() - {"README.md", ".gitattributes"}


def test_a_second_fetch_downloads_nothing(hubs: Loopback, client: Client) -> None:
    repository = hubs.add("hf:org/twice", Repository(KERAS))

    assert client.fetch("hf://org/twice") == client.fetch("hf://org/twice")

    assert set(repository.num_downloads.values()) == {1}


def test_the_bytes_of_a_download_are_told(hubs: Loopback, client: Client) -> None:
    files = {"config.json": b"{}", "model.safetensors": LARGE}
    hubs.add("hf:org/progress", Repository(files))

    assert client.progress("hf://org/progress", Part.CONFIG) == ""
    assert client.progress("hf://org/progress", Part.BACKBONE) == "100000/100000"
    assert client.progress("hf://org/progress", Part.BACKBONE) == "", "it is there"


def test_a_revision_has_its_own_files(hubs: Loopback, client: Client) -> None:
    older = {"config.json": b"[]", "model.weights.h5": b"older"}
    hubs.add("hf:org/revisions", Repository(KERAS, revisions={"v1": older}))

    directory = client.fetch("hf://org/revisions@v1")

    assert (directory / "model.weights.h5").read_bytes() == b"older"


def test_a_revision_that_is_not_there_is_unknown(hubs: Loopback, client: Client) -> None:
    hubs.add("hf:org/no-revision", Repository(KERAS))

    error, message = client.fail("hf://org/no-revision@v9")

    assert error == "UnknownPresetError"
    assert "hf://org/no-revision@v9: the repository has no such revision" in message


def test_a_repository_that_is_not_there_is_unknown(client: Client) -> None:
    error, message = client.fail("hf://org/nothing")

    assert error == "UnknownPresetError"
    assert "HF_TOKEN" in message  # it may be private


def test_a_gated_repository_asks_for_terms_and_token(
    hubs: Loopback, client: Client, client_with_token: Client
) -> None:
    hubs.add("hf:org/gated", Repository(KERAS, needs_token=True))

    error, message = client.fail("hf://org/gated")

    assert error == "AccessError"
    assert "accept the terms" in message
    assert "HF_TOKEN" in message
    assert client_with_token.fetch("hf://org/gated").is_dir()


def test_a_download_that_breaks_off_is_resumed(hubs: Loopback, client: Client) -> None:
    files = {"config.json": b"{}", "model.safetensors": LARGE}
    repository = Repository(files, breaks_off={"model.safetensors": 60_000})
    hubs.add("hf:org/broken", repository)

    directory = client.fetch("hf://org/broken")

    assert (directory / "model.safetensors").read_bytes() == LARGE
    assert repository.num_downloads["model.safetensors"] == 2


def test_weights_with_another_digest_are_refused_and_deleted(
    hubs: Loopback, client: Client
) -> None:
    files = {"config.json": b"{}", "model.safetensors": LARGE}
    repository = hubs.add("hf:org/damaged", Repository(files))
    repository.sends_instead["model.safetensors"] = LARGE[::-1]

    error, message = client.fail("hf://org/damaged")
    repository.sends_instead.clear()

    assert error == "DigestError"
    assert "model.safetensors has the SHA-256" in message
    assert (client.fetch("hf://org/damaged") / "model.safetensors").read_bytes() == LARGE


def test_offline_the_cache_is_enough(
    hubs: Loopback, client: Client, offline_client: Client, client_without_network: Client
) -> None:
    hubs.add("hf:org/warm", Repository(KERAS, revisions={"v1": KERAS}))
    directory = client.fetch("hf://org/warm")
    revision = client.fetch("hf://org/warm@v1")

    assert offline_client.fetch("hf://org/warm") == directory
    assert offline_client.fetch("hf://org/warm@v1") == revision
    assert client_without_network.fetch("hf://org/warm") == directory


def test_offline_an_empty_cache_is_said(hubs: Loopback, offline_client: Client) -> None:
    hubs.add("hf:org/cold", Repository(KERAS))

    error, message = offline_client.fail("hf://org/cold")

    assert error == "OfflineError"
    assert "hf://org/cold" in message
    assert "HF_HUB_OFFLINE" in message


def test_offline_a_part_that_never_came_is_said(
    hubs: Loopback, client: Client, offline_client: Client
) -> None:
    hubs.add("hf:org/half", Repository(KERAS))
    client.fetch("hf://org/half")

    error, message = offline_client.fail("hf://org/half", Part.PIPELINE)

    assert error == "OfflineError"
    assert "hf://org/half" in message


def test_without_network_an_empty_cache_is_said(client_without_network: Client) -> None:
    error, _ = client_without_network.fail("hf://org/elsewhere")

    assert error == "OfflineError"


def test_pickles_are_refused(hubs: Loopback, client: Client) -> None:
    hubs.add("hf:org/pickles", Repository({"config.json": b"{}", "pytorch_model.bin": b"x"}))

    error, message = client.fail("hf://org/pickles")

    assert error == "PickleError"
    assert "pytorch_model.bin" in message


def test_a_missing_file_is_named(hubs: Loopback, client: Client) -> None:
    hubs.add("hf:org/empty", Repository({"config.json": b"{}", "README.md": b""}))

    error, message = client.fail("hf://org/empty")

    assert error == "PresetFileError"
    assert "hf://org/empty has none of model.safetensors, model.weights.h5" in message
