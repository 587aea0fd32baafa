"""Which server gets most of one classifier? `python -m benchmarks.serving_peers [--output FILE]`.

ViT-B/16 of random weights, and `vit_shapes` as a small one, behind `triptych serve` and behind
LitServe, Ray Serve and BentoML, which call our library for decoding, preprocessing and forward: the
servers are compared. Each batches as its documentation recommends, at most as many as we do. Server
and clients share all cores. Closed loops of 1, 8 and 64 clients; then, once all are known, an open
loop of random arrivals at a share of the slowest's throughput, whose times begin at the arrival.
Every server is started twice, in opposite order, and stands alone while it is measured.
`python -m benchmarks.peers.install litserve ray bentoml` installs the peers.
"""

import argparse
import base64
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.eviction import write_model
from benchmarks.load_client import (
    Load,
    LoadPlan,
    NoAnswerError,
    UnexpectedAnswerError,
    post,
    post_bytes,
    run_loads,
)
from benchmarks.machine import processor
from benchmarks.peers import install
from benchmarks.process_tree import memory_bytes, tree_of
from benchmarks.reports import publish, table_of
from benchmarks.running_service import free_port
from benchmarks.throughput import encoded, photographs, shapes

LOGGER = logging.getLogger(__name__)

OURS = "triptych"
NUM_CLIENTS = (1, 8, 64)
MOST_CLIENTS = max(NUM_CLIENTS)
OPEN_SHARE = 0.7  # of the lowest throughput, so that no server's queue grows without end
NOT_INSTALLED = "not installed: python -m benchmarks.peers.install {}"
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Model:
    """`max_batch` is every server's; a slow model's are small, so that a load sees many."""

    name: str
    handle: str
    images: Sequence[bytes]  # files, different ones: what a server keeps is of no use
    max_batch: int
    seconds: float  # of a load of few clients; one of most takes twice that


@dataclass(frozen=True, slots=True)
class Server:
    """How it is started, and asked for a classification."""

    name: str
    environment: str | None  # None: that of this command
    command: Callable[[Model, int], Sequence[str]]  # by model and port, after the interpreter
    request: Callable[[bytes], bytes]
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)


def _module(name: str) -> Callable[[Model, int], Sequence[str]]:
    def command(model: Model, port: int) -> Sequence[str]:
        return ("-m", f"benchmarks.peers.{name}", model.handle, str(port), str(model.max_batch))

    return command


def _serve_ours(model: Model, port: int) -> Sequence[str]:
    return ("-m", "triptych", "serve", "--port", str(port), "--model", f"it={model.handle}")


def _ask_us(file: bytes) -> bytes:
    return post("/v1/classify", {"input": base64.b64encode(file).decode()})


def _ask_litserve(file: bytes) -> bytes:
    return post("/predict", {"image": base64.b64encode(file).decode()})


def _ask_ray(file: bytes) -> bytes:
    return post_bytes("/", file, "application/octet-stream")


def _ask_bentoml(file: bytes) -> bytes:
    boundary = "boundary-of-the-form"
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="images"; filename="image"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    )
    content = head.encode() + file + f"\r\n--{boundary}--\r\n".encode()
    return post_bytes("/classify", content, f"multipart/form-data; boundary={boundary}")


SERVERS = (
    Server(OURS, None, _serve_ours, _ask_us),
    Server("litserve", "litserve", _module("serve_litserve"), _ask_litserve),
    Server(
        "ray",
        "ray",
        _module("serve_ray"),
        _ask_ray,
        # by itself it gives up a proxy that takes 5 s to start, and begins again
        {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"},
    ),
    Server("bentoml", "bentoml", _module("serve_bentoml"), _ask_bentoml),
)


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    port: int
    ready_s: float  # from its start to its first classification
    memory_mb: int  # of all its processes, after that


@dataclass(frozen=True, slots=True)
class Row:
    """One server under one load, of which there were several; times of the median one."""

    model: str
    server: str
    load: str
    num_loads: int = 0
    per_s: float | None = None  # the median of the loads'
    lowest_per_s: float | None = None
    highest_per_s: float | None = None
    ours_over_it: float | None = None
    median_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    num_errors: int | None = None
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    model: str
    server: str
    ready_s: float  # the median
    memory_mb: int  # after its last load


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    load_average: float
    peers: Mapping[str, str]  # versions
    bare_forward_ms: Mapping[
        str, float
    ]  # of one image by the library alone: the limit of one client
    starts: Sequence[Start]
    rows: Sequence[Row]


@contextmanager
def serving(server: Server, model: Model, python: Path) -> Iterator[Running]:
    """Run a server from its first classification until the block ends; nothing of it stays."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        log = Path(home) / "log"
        process = _start(server, model, python, port, Path(home), log)
        started = time.monotonic()
        try:
            wait_until_answered(server, model, port, process, log)
            ready_s = time.monotonic() - started
            yield Running(process.pid, port, ready_s, memory_bytes(process.pid) // 2**20)
        finally:
            stop(process)


def _start(
    server: Server, model: Model, python: Path, port: int, home: Path, log: Path
) -> subprocess.Popen[bytes]:
    own = {
        "HOME": str(home),  # where some keep files
        "TRIPTYCH_DATA_DIR": str(home / "data"),
        "TRIPTYCH_MAX_BATCH": str(model.max_batch),
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            [python, *server.command(model, port)],
            env={**os.environ, **own, **server.settings},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_until_answered(
    server: Server, model: Model, port: int, process: subprocess.Popen[bytes], log: Path
) -> None:
    head, _, content = server.request(model.images[0]).partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = dict(text.split(": ", 1) for text in fields)
    path, started = line.split()[1], time.monotonic()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        while time.monotonic() - started < _START_TIMEOUT_S:
            if process.poll() is not None:
                last = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise ServerError(f"{server.name} ended with status {process.returncode}: {last}")
            with suppress(httpx.TransportError):
                answer = client.post(path, content=content, headers=headers)
                if answer.status_code == httpx.codes.OK:
                    return
            time.sleep(0.05)
    raise ServerError(f"{server.name} classified nothing within {_START_TIMEOUT_S:g} s")


class ServerError(Exception):
    """Raised for a server that does not come to answer."""


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and end what is left of its processes, by their ids."""
    family = tree_of(process.pid)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@dataclass(slots=True)
class Measured:
    """Of one server with one model: what came of its starts and loads."""

    loads: dict[str, list[Load]] = field(default_factory=dict)
    ready_s: list[float] = field(default_factory=list)
    memory_mb: int = 0
    unavailable: str | None = None


def measure_model(
    model: Model, servers: Mapping[Server, Path], measured: Mapping[Server, Measured]
) -> None:
    """Start every server alone: closed loops; then, in opposite order, an open one as well."""
    for server in servers:
        _measure_start(server, model, servers[server], measured[server], NUM_CLIENTS, None)
    reached = [_per_s(measured[server], _closed(MOST_CLIENTS)) for server in servers]
    lowest = min((per_s for per_s in reached if per_s), default=None)
    for server in reversed([*servers]):
        if measured[server].unavailable is None:
            arrivals_per_s = None if lowest is None else OPEN_SHARE * lowest
            _measure_start(
                server, model, servers[server], measured[server], (MOST_CLIENTS,), arrivals_per_s
            )


def _measure_start(
    server: Server,
    model: Model,
    python: Path,
    measured: Measured,
    closed: Sequence[int],
    arrivals_per_s: float | None,
) -> None:
    LOGGER.info("event=start server=%s model=%s", server.name, model.name)
    requests = [server.request(file) for file in model.images]
    try:
        with serving(server, model, python) as running:
            measured.ready_s.append(running.ready_s)
            if arrivals_per_s is not None:
                plan = LoadPlan(
                    running.port,
                    requests,
                    MOST_CLIENTS,
                    2 * model.seconds,
                    arrivals_per_s=arrivals_per_s,
                    counts_errors=True,
                )
                _add_load(measured, _open(arrivals_per_s), plan)
            for num_clients in closed:
                seconds = 2 * model.seconds if num_clients == MOST_CLIENTS else model.seconds
                plan = LoadPlan(running.port, requests, num_clients, seconds, counts_errors=True)
                _add_load(measured, _closed(num_clients), plan)
            measured.memory_mb = memory_bytes(running.pid) // 2**20
    except (ServerError, UnexpectedAnswerError, NoAnswerError, TimeoutError, OSError) as error:
        measured.unavailable = f"{type(error).__name__}: {error}".partition("\n")[0]


def _add_load(measured: Measured, name: str, plan: LoadPlan) -> None:
    [load] = run_loads(plan)
    LOGGER.info("event=load name=%r per_s=%s median_ms=%s", name, load.per_s, load.median_ms)
    measured.loads.setdefault(name, []).append(load)


def _closed(num_clients: int) -> str:
    return f"{num_clients} clients" if num_clients > 1 else "1 client"


def _open(arrivals_per_s: float) -> str:
    return f"{arrivals_per_s:.3g}/s at random"


def _per_s(measured: Measured, load: str) -> float | None:
    loads = measured.loads.get(load)
    return round(statistics.median(load.per_s for load in loads), 2) if loads else None


def rows_of(model: Model, measured: Mapping[Server, Measured]) -> Iterator[Row]:
    """Every load of every server, in the order of the loads."""
    names = list(dict.fromkeys(name for result in measured.values() for name in result.loads))
    ours = next((result for server, result in measured.items() if server.name == OURS), None)
    for name in names:
        our_per_s = None if ours is None else _per_s(ours, name)
        for server, result in measured.items():
            per_s, loads = _per_s(result, name), result.loads.get(name)
            if per_s is None or loads is None:
                continue
            middle = sorted(loads, key=lambda load: load.median_ms)[len(loads) // 2]
            yield Row(
                model.name,
                server.name,
                name,
                num_loads=len(loads),
                per_s=per_s,
                lowest_per_s=min(load.per_s for load in loads),
                highest_per_s=max(load.per_s for load in loads),
                ours_over_it=round(our_per_s / per_s, 3) if our_per_s and per_s else None,
                median_ms=middle.median_ms,
                p95_ms=middle.p95_ms,
                p99_ms=middle.p99_ms,
                num_errors=sum(load.num_errors for load in loads),
            )
    for server, result in measured.items():
        if result.unavailable is not None:
            yield Row(model.name, server.name, "all", unavailable=result.unavailable)


def bare_forward_ms(model: Model) -> float:
    """One image from its file to its best labels, by the library alone, where the peers call it."""
    from benchmarks.peers.served_classifier import ServedClassifier

    classifier = ServedClassifier(model.handle)
    times_s = []
    for file in model.images[:20]:
        started = time.perf_counter()
        classifier.classify([file])
        times_s.append(time.perf_counter() - started)
    return round(1e3 * statistics.median(times_s[1:]), 2)


def measure(models: Sequence[Model], servers: Sequence[Server], folder: Path) -> Report:
    load_average = os.getloadavg()[0]
    installed = {
        server: python for server in servers if (python := _python_of(server, folder)) is not None
    }
    rows: list[Row] = []
    starts: list[Start] = []
    bare: dict[str, float] = {}
    for model in models:
        bare[model.name] = bare_forward_ms(model)
        measured = {server: Measured() for server in servers}
        for server in servers:
            if server not in installed:
                measured[server].unavailable = NOT_INSTALLED.format(server.environment)
        measure_model(model, installed, measured)
        rows += rows_of(model, measured)
        starts += [
            Start(model.name, server.name, round(statistics.median(result.ready_s), 2), memory)
            for server, result in measured.items()
            if result.ready_s and (memory := result.memory_mb)
        ]
    names = [server.environment for server in installed if server.environment is not None]
    return Report(
        machine=processor(),
        num_cores=os.cpu_count() or 1,
        load_average=round(load_average, 2),
        peers={name: version for env in names for name, version in install.pinned(env).items()},
        bare_forward_ms=bare,
        starts=starts,
        rows=rows,
    )


def _python_of(server: Server, folder: Path) -> Path | None:
    if server.environment is None:
        return Path(sys.executable)
    return install.interpreter(folder, server.environment)


def table(report: Report) -> str:
    header = ("model", "load", "server", "per s", "ours/it", "p50 ms", "p95", "p99", "errors", "")
    rows = [
        (
            row.model,
            row.load,
            row.server,
            row.per_s,
            row.ours_over_it,
            row.median_ms,
            row.p95_ms,
            row.p99_ms,
            row.num_errors,
            row.unavailable or "",
        )
        for row in report.rows
    ]
    starts = [(s.model, s.server, s.ready_s, s.memory_mb) for s in report.starts]
    limits = ", ".join(f"{name} {ms} ms" for name, ms in report.bare_forward_ms.items())
    return (
        f"{table_of(header, rows)}\n"
        f"{table_of(('model', 'server', 'ready s', 'memory MB'), starts)}\n"
        f"limit of one client, the library alone: {limits}\n"
    )


def small_model(seconds: float) -> Model:
    files = [base64.b64decode(encoded(image, "PNG")) for image in shapes()]
    return Model("vit_shapes", "vit_shapes", files, max_batch=32, seconds=seconds)


def base_model(folder: Path, seconds: float) -> Model:
    write_model(folder, "vit", seed=0)
    files = [base64.b64decode(encoded(image, "JPEG")) for image in photographs()]
    return Model("vit_b16", str(folder), files, max_batch=8, seconds=2 * seconds)


def _exit(number: int, _: object) -> None:
    sys.exit(128 + number)


def main() -> None:
    names = [server.name for server in SERVERS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", nargs="*", choices=names[1:], default=names[1:])
    parser.add_argument("--models", nargs="+", choices=["vit_shapes", "vit_b16"])
    parser.add_argument("--seconds", type=float, default=3.0, help="of a load of the small model")
    parser.add_argument("--peers-folder", type=Path, default=install.FOLDER)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _exit)  # a server must not outlive it
    chosen = arguments.models or ["vit_shapes", "vit_b16"]
    servers = [server for server in SERVERS if server.name in (OURS, *arguments.peers)]
    with tempfile.TemporaryDirectory() as folder:
        models = [small_model(arguments.seconds)] if "vit_shapes" in chosen else []
        if "vit_b16" in chosen:
            models.append(base_model(Path(folder), arguments.seconds))
        report = measure(models, servers, arguments.peers_folder)
    publish(report, arguments.output, table(report))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    main()
