"""What goes wrong on every hub alike, and what several processes do at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from tests.models.presets.hubs.conftest import Client
from tests.models.presets.hubs.loopback import Loopback, Repository, Response

FILES = {"config.json": b"{}", "model.weights.h5": os.urandom(100_000)}
NAMES = ["hf:org/{}", "kaggle:org/vit/keras/{}", "modelscope:org/{}"]


def handle_of(name: str) -> str:
    return name.replace(":", "://", 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_hub_that_fails_is_said(hubs: Loopback, client: Client, name: str) -> None:
    name = name.format("fails")
    hubs.add(name, Repository(FILES, failure=Response(500)))

    error, message = client.fail(handle_of(name))

    assert error == "DownloadError"
    assert f"{handle_of(name)}: " in message


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("name", NAMES)
def test_a_token_that_is_refused_is_said(
    hubs: Loopback, client_with_token: Client, name: str, status: int
) -> None:
    name = name.format(f"refuses-{status}")
    headers = {"X-Error-Message": "Invalid credentials in Authorization header"}
    hubs.add(name, Repository(FILES, failure=Response(status, headers)))

    error, message = client_with_token.fail(handle_of(name))

    assert error == "AccessError"
    assert "TOKEN" in message


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_disk_that_is_full_is_said(
    hubs: Loopback, client_on_a_small_disk: Client, name: str
) -> None:
    name = name.format("large")
    hubs.add(name, Repository(FILES))

    error, message = client_on_a_small_disk.fail(handle_of(name))

    assert error == "DownloadError"
    assert f"{handle_of(name)} could not be stored: " in message


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_download_a_preset_once(
    hubs: Loopback, client: Client, client_with_token: Client, name: str
) -> None:
    name = name.format("shared")
    repository = hubs.add(name, Repository(FILES, file_gate=Event()))
    assert repository.file_gate is not None

    with ThreadPoolExecutor() as threads:
        fetches = [threads.submit(c.fetch, handle_of(name)) for c in (client, client_with_token)]
        repository.file_gate.set()
    first, second = [each.result() for each in fetches]

    assert first == second
    assert (first / "model.weights.h5").read_bytes() == FILES["model.weights.h5"]
    assert repository.num_downloads["model.weights.h5"] == 1
