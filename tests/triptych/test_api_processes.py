"""Several processes of the API on one port: together they are one, and each dies alone."""

import json
import os
import re
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx
import pytest

from tests.triptych.conftest import Serve, wait_until

NAMES = ("api-0", "api-1")
COUNT = re.compile(
    r'^triptych_http_requests_total\{method="GET",route="/healthz",status="200"\} (\S+)$', re.M
)
IN_FLIGHT = re.compile(r"^triptych_http_requests_in_flight (\S+)$", re.M)


@pytest.fixture
def apis(serve: Serve) -> dict[str, int]:
    """The process ids of both, which accept."""
    wait_until(lambda: set(NAMES) <= set(serve.children()), "the second never came")
    pids = {name: serve.children()[name] for name in NAMES}
    Clients(serve, pids, ask_health).close()
    serve.wait_until_ready()
    return pids


def ask_health(connection: HTTPConnection) -> None:
    connection.request("GET", "/healthz")
    connection.getresponse().read()


def holds(pid: int, connection: HTTPConnection) -> bool:
    """Whether the process is the one at the other end."""
    port = f":{connection.sock.getsockname()[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = [line[9] for line in lines if line[2].endswith(port)]
    return any(f"socket:[{inode}]" in files_of(pid) for inode in inodes)


def files_of(pid: int) -> set[str]:
    found = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed a moment ago
            found.add(os.readlink(file))
    return found


def value(pattern: re.Pattern[str], serve: Serve) -> float:
    found = pattern.search(httpx.get(f"{serve.url}/metrics").raise_for_status().text)
    return float(found[1]) if found else 0.0


class Clients:
    """Connections on which the same is asked for, until there is one to each process."""

    def __init__(
        self, serve: Serve, apis: dict[str, int], ask: Callable[[HTTPConnection], None]
    ) -> None:
        self.of: dict[str, list[HTTPConnection]] = {name: [] for name in apis}

        def connect() -> bool:
            connection = HTTPConnection("127.0.0.1", int(serve.url.rpartition(":")[2]), timeout=60)
            ask(connection)
            wait_until(partial(self._take, connection, apis), "nobody accepted")
            return all(self.of.values())

        wait_until(connect, "one process accepts all connections")

    def _take(self, connection: HTTPConnection, apis: dict[str, int]) -> bool:
        owner = next((name for name, pid in apis.items() if holds(pid, connection)), None)
        if owner is not None:
            self.of[owner].append(connection)
        return owner is not None

    def close(self) -> None:
        for connections in self.of.values():
            for connection in connections:
                connection.close()


def test_a_killed_process_takes_only_its_own_connections(
    serve: Serve, apis: dict[str, int], tmp_path: Path
) -> None:
    release = tmp_path / "release"
    body = {"prompt": f"wait {release}", "size": "64x64", "num_inference_steps": 3, "seed": 1}
    job = httpx.post(
        f"{serve.url}/v1/images/generations", json=body, headers={"Prefer": "respond-async"}
    ).json()
    before = value(COUNT, serve)

    def follow(connection: HTTPConnection) -> None:
        connection.request("GET", job["urls"]["events"])

    def wait(connection: HTTPConnection) -> None:  # it shares the job's run
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/images/generations", json.dumps(body), headers)

    with (
        closing(Clients(serve, apis, follow)) as followers,
        closing(Clients(serve, apis, wait)) as waiters,
    ):
        os.kill(apis["api-1"], signal.SIGKILL)
        for cut_off in (*followers.of["api-1"], *waiters.of["api-1"]):
            with pytest.raises((HTTPException, OSError)):
                cut_off.getresponse().read()
        for _ in range(20):  # new ones never meet the dead one
            httpx.get(f"{serve.url}/healthz").raise_for_status()
        release.touch()
        for waiter in waiters.of["api-0"]:
            assert waiter.getresponse().status == httpx.codes.OK
        for follower in followers.of["api-0"]:
            assert b"event: finished" in follower.getresponse().read()
    ended = httpx.get(f"{serve.url}/v1/jobs/{job['id']}").json()
    assert (ended["status"], len(ended["attempts"])) == ("succeeded", 1)
    wait_until(partial(serve.has_again, "api-1", apis["api-1"]), "it was not started again")
    assert value(COUNT, serve) == before + 20
    wait_until(lambda: value(IN_FLIGHT, serve) == 1, "the dead one's requests are still counted")


def test_any_process_counts_for_all(serve: Serve, apis: dict[str, int]) -> None:
    before = value(COUNT, serve)
    with closing(Clients(serve, apis, ask_health)) as clients:
        num_asked = sum(map(len, clients.of.values()))
        counts = set()
        for name in apis:
            clients.of[name][0].request("GET", "/metrics")
            found = COUNT.search(clients.of[name][0].getresponse().read().decode())
            counts.add(found and float(found[1]))
    assert counts == {before + num_asked}


def test_processes_are_told_apart_by_their_names(apis: dict[str, int]) -> None:
    assert {name: Path(f"/proc/{pid}/comm").read_text().strip() for name, pid in apis.items()} == {
        name: name for name in apis
    }
