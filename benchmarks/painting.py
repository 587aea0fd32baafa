"""How fast are images, one at a time and eight? `python -m benchmarks.painting [--output FILE]`.

Starts `triptych serve` and asks `flux_shapes` for images at its defaults, each client for the next
when it has the last. Says images a second and latencies. A third load asks for previews as well:
the events of its jobs say how soon the first one came, and how honest the estimates of the time
that remains are. With `--shallow` all of it on a `flux_shapes` of two blocks, whose steps are cheap
against what is around them, as all steps are on a faster device.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from safetensors.torch import load_file, save_file

from benchmarks.load_client import Load, LoadPlan, percentile, post, run_loads
from benchmarks.machine import processor
from benchmarks.reports import publish
from benchmarks.running_service import running
from models.presets import get_preset

NUM_CLIENTS = 8
NUM_PROMPTS = 8_000  # of a load: more than are answered, as no prompt is asked for twice
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
LATER_BLOCK = re.compile(r"(single_)?transformer_blocks\.[1-9]")
HONEST = 0.25  # of the time that it took: how far off an estimate may be


@dataclass(frozen=True, slots=True)
class Progress:
    """What the events of a load's jobs say.

    idle_step_ms        of a job alone, the median
    preview_steps       from arrival to the first preview, in steps of the job's own pace
    preview_idle_steps  the same in steps of a job alone
    honest_share        of jobs whose estimate after the first step was within a quarter
    """

    num_jobs: int
    idle_step_ms: float
    preview_steps_median: float
    preview_steps_p95: float
    preview_idle_steps_median: float
    preview_idle_steps_p95: float
    honest_share: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    one: Load
    eight: Load
    ratio: float  # of images a second
    # computed, not measured: 8 times the median of one, as eight clients would wait for each other
    p95_one_at_a_time_ms: float
    progress: Progress


@dataclass(frozen=True, slots=True)
class JobEvent:
    at_s: float  # on the server's clock
    kind: str
    remaining_s: float | None = None  # what a step says


def requests(load: int, preview_steps: Sequence[int] = ()) -> list[bytes]:
    """Ask for images that no other load asks for, as features of known prompts are kept."""
    bodies = []
    for number in range(load * NUM_PROMPTS, (load + 1) * NUM_PROMPTS):
        colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
        body: dict[str, object] = {"prompt": f"a {colour} {shape}, number {number}"}
        if preview_steps:
            body["preview_steps"] = preview_steps
        bodies.append(post("/v1/images/generations", body))
    return bodies


def jobs_of(url: str, answers: Sequence[bytes]) -> list[list[JobEvent]]:
    """The events of the jobs that these answers are from."""
    with httpx.Client(base_url=url, timeout=60) as client:
        routes = (f"/v1/jobs/{json.loads(answer)['id']}/events" for answer in answers)
        return [events_of(client.get(route).raise_for_status().text) for route in routes]


def events_of(stream: str) -> list[JobEvent]:
    """Read server-sent events; comments among them say nothing."""
    events = []
    for frame in stream.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line)
        if "data" in fields:
            at_s = int(fields["id"].partition("-")[0]) / 1000
            remaining_s = json.loads(fields["data"]).get("remaining_s")
            events.append(JobEvent(at_s, fields["event"], remaining_s))
    return events


def progress_of(jobs: Sequence[Sequence[JobEvent]], idle_step_s: float) -> Progress:
    waits_s = [_first(events, "preview").at_s - events[0].at_s for events in jobs]
    own_steps = [wait_s / step_s(events) for wait_s, events in zip(waits_s, jobs, strict=True)]
    idle_steps = [wait_s / idle_step_s for wait_s in waits_s]
    return Progress(
        num_jobs=len(jobs),
        idle_step_ms=round(1e3 * idle_step_s, 2),
        preview_steps_median=round(statistics.median(own_steps), 2),
        preview_steps_p95=round(percentile(own_steps, 0.95), 2),
        preview_idle_steps_median=round(statistics.median(idle_steps), 2),
        preview_idle_steps_p95=round(percentile(idle_steps, 0.95), 2),
        honest_share=round(statistics.mean(map(is_honest, jobs)), 3),
    )


def step_s(events: Sequence[JobEvent]) -> float:
    """How long a step of this job took; raises ValueError where it had less than two."""
    steps = [event for event in events if event.kind == "step"]
    if len(steps) < 2:
        raise ValueError(f"got a job of {len(steps)} steps; its pace takes two at least")
    return (steps[-1].at_s - steps[0].at_s) / (len(steps) - 1)


def is_honest(events: Sequence[JobEvent]) -> bool:
    """Whether the first step had an estimate of the rest, and a good one."""
    first = _first(events, "step")
    took_s = events[-1].at_s - first.at_s
    return first.remaining_s is not None and abs(first.remaining_s - took_s) <= HONEST * took_s


def _first(events: Sequence[JobEvent], kind: str) -> JobEvent:
    for event in events:
        if event.kind == kind:
            return event
    raise ValueError(f"got a job without {kind}: {[event.kind for event in events]}")


def write_shallow(directory: Path) -> None:
    """Write `flux_shapes` with the first block of each kind alone; what it paints is no matter."""
    source = Path(get_preset("flux_shapes").handle)
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("transformer"))
    config = json.loads((source / "transformer" / "config.json").read_text())
    weights = load_file(source / "transformer" / "diffusion_pytorch_model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not LATER_BLOCK.match(name)}
    transformer = directory / "transformer"
    transformer.mkdir()
    config |= {"num_layers": 1, "num_single_layers": 1}
    (transformer / "config.json").write_text(json.dumps(config))
    save_file(kept, transformer / "diffusion_pytorch_model.safetensors", {"format": "pt"})


def shallow_model(directory: Path) -> str:
    """Write it, and give TRIPTYCH_MODELS that serves it with the defaults of `flux_shapes`."""
    write_shallow(directory)
    defaults = {"default_size": "128x128", "num_steps": 20, "guidance_scale": 2.0}
    return json.dumps([{"name": "shallow", "handle": str(directory), **defaults}])


def measure(models: str, duration_s: float) -> Report:
    """Ask the only one of these models for images."""
    alone: list[bytes] = []
    previewed: list[bytes] = []
    with running("triptych", "serve", TRIPTYCH_MODELS=models) as service:

        def load(asked: list[bytes], num_clients: int, answers: list[bytes]) -> Load:
            warm_up_s = duration_s / 10
            [done] = run_loads(
                LoadPlan(service.port, asked, num_clients, duration_s, warm_up_s, answers.append)
            )
            return done

        one = load(requests(0), 1, alone)
        eight = load(requests(1), NUM_CLIENTS, [])
        load(requests(2, preview_steps=[1]), NUM_CLIENTS, previewed)
        idle_step_s = statistics.median(map(step_s, jobs_of(service.url, alone)))
        progress = progress_of(jobs_of(service.url, previewed), idle_step_s)
    return Report(
        machine=processor(),
        num_cores=os.cpu_count() or 1,
        one=one,
        eight=eight,
        ratio=round(eight.per_s / one.per_s, 2),
        p95_one_at_a_time_ms=round(NUM_CLIENTS * one.median_ms, 1),
        progress=progress,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration-s", type=float, default=20.0, help="of each load")
    parser.add_argument("--shallow", action="store_true", help="a model of two blocks")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = shallow_model(Path(folder) / "shallow") if arguments.shallow else "flux_shapes"
        publish(measure(models, arguments.duration_s), arguments.output)


if __name__ == "__main__":
    main()
