"""Start the real thing, `triptych serve` in a process of its own, and stop it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.process_tree import tree_of
from benchmarks.running_service import free_port, wait_until_ready
from tests.models.presets.hubs.loopback import Loopback

STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """A running `triptych serve`."""

    port: int
    process: subprocess.Popen[bytes]
    data_dir: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self, queue: str) -> list[int]:
        """The process ids of the workers of one queue."""
        names = {pid: read(pid, "comm") for pid in tree_of(self.process.pid)}
        return [pid for pid, name in names.items() if name.startswith(f"{queue}-")]


def read(pid: int, name: str) -> str:
    """A file of `/proc/PID`, or nothing where the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def hub_settings(hub: Loopback, data_dir: Path) -> dict[str, str]:
    """Let the service find Hugging Face on this machine, and keep its files to itself."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(data_dir / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def is_loading(client: httpx.Client) -> bool:
    """Whether some model is still on its way: a task is ready with its first."""
    models = client.get("/v1/models").raise_for_status().json()["data"]
    return any(model["state"] == "loading" for model in models)


def start_service(data_dir: Path, **settings: str) -> Service:
    """Start `triptych serve` on a free port; `settings` are environment variables."""
    port = free_port()
    log = data_dir / "serve.log"
    flags = ["--port", str(port), "--data-dir", str(data_dir)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "triptych", "serve", *flags],
            stdout=output,
            stderr=output,
            env={**os.environ, **settings},
        )
    service = Service(port, process, data_dir, log)
    try:
        with httpx.Client(base_url=service.url, timeout=10) as client:
            wait_until_ready(client, process)
            poll_until(lambda: not is_loading(client))
    except BaseException:
        stop_service(service)
        sys.stderr.write(log.read_text())
        raise
    return service


def stop_service(service: Service) -> int:
    """Drain and stop; return the exit status."""
    service.process.send_signal(signal.SIGTERM)
    return service.process.wait(timeout=STOP_TIMEOUT_S)


def poll_until(reached: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Ask until the condition holds; fail when time is up."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            raise AssertionError(f"{reached} did not hold within {timeout_s} s")
        time.sleep(0.02)
