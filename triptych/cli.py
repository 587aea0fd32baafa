"""The command line. Each command imports what it needs when it runs: `--help` loads no torch."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from models.errors import ModelsError
from models.presets import PRESETS
from triptych.errors import StartError
from worker.contract.jobs import Task

app = typer.Typer(
    help="Paint, see and read over HTTP, on your own GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
DataDir = Annotated[Path | None, typer.Option(help="Where images (and the Valkey's file) lie.")]
RedisUrl = Annotated[str | None, typer.Option(help="A Redis server of yours.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda:N.")]
Devices = Annotated[
    str | None,
    typer.Option(
        "--device", help="Those that workers may use: auto, cpu, or a list such as cuda:0,cuda:3."
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(help="How many per task, such as images=2,classify=1."),
]
ApiProcesses = Annotated[int | None, typer.Option(help="How many share the port of the API.")]
Observe = Annotated[
    bool | None,
    typer.Option("--observe", help="Run Prometheus and Grafana too, those that are installed."),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="A model to serve: NAME, NAME=HANDLE, a hub's handle, a directory or a file; "
        "repeatable, the first of a task is its default.",
    ),
]
Config = Annotated[Path | None, typer.Option(help="A TOML file with any of these settings.")]


def _given(**flags: object) -> Mapping[str, object]:
    """The flags that were typed, for a settings class that checks them and reads the others from
    the environment."""
    return {name: value for name, value in flags.items() if value not in (None, [])}


@contextmanager
def _complaints() -> Iterator[None]:
    """End with one line a fault, not with a traceback, where the user is to change something."""
    try:
        yield
    except ValidationError as error:
        for fault in error.errors():
            name = ".".join(str(part) for part in fault["loc"])
            got = f": got {fault['input']!r}" if fault["type"] != "missing" else ""
            where = f"{name}{got}: " if name else ""  # none: several settings do not fit together
            typer.echo(f"triptych: {where}{fault['msg'].removeprefix('Value error, ')}", err=True)
        sys.exit(2)
    except (StartError, ModelsError) as error:
        typer.echo(f"triptych: {error}", err=True)
        sys.exit(1)


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    device: Devices = None,
    workers: Workers = None,
    api_processes: ApiProcesses = None,
    observe: Observe = None,
    model: Models = None,
    config: Config = None,
) -> None:
    """Run everything on this host: the queue, the API and workers on all of its GPUs."""
    from service.settings import ServiceSettings
    from triptych.settings import ServeSettings
    from triptych.supervisor import Supervisor, plan
    from triptych.worker_slots import served_tasks
    from worker.contract.log_lines import write_logs
    from worker.model_specs import with_tasks
    from worker.settings import WorkerSettings

    given = _given(host=host, port=port, data_dir=data_dir, redis_url=redis_url, device=device,
                   workers=workers, api_processes=api_processes, observe=observe,
                   models=model, config=config)  # fmt: skip
    with _complaints():
        settings = ServeSettings.model_validate(given)
        write_logs(settings.log_format)
        specs = with_tasks(settings.specs)
        # the children's own settings, so that a bad one stops the start and not each child
        ServiceSettings(port=settings.port)
        for task in served_tasks(specs):
            WorkerSettings(
                config=settings.config,
                queue=task,
                redis_url="unix://",
                data_dir=settings.data_dir,
                device="auto",
                models=settings.models,
                model_aliases=settings.model_aliases,
            )
        Supervisor(settings, specs, plan(settings, specs)).run()


@app.command()
def api(
    host: Host = None, port: Port = None, data_dir: DataDir = None, redis_url: RedisUrl = None
) -> None:
    """Run the HTTP side alone."""
    from service.main import main as serve_api
    from service.settings import ServiceSettings

    given = _given(host=host, port=port, data_dir=data_dir, redis_url=redis_url)
    with _complaints():
        settings = ServiceSettings.model_validate(given)
    serve_api(settings)


@app.command()
def worker(
    queue: Annotated[Task, typer.Option(help="The one queue to serve.")],
    device: Device = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    model: Models = None,
    config: Config = None,
) -> None:
    """Run one worker: one process, one queue, one device."""
    from worker.settings import WorkerSettings

    given = _given(queue=queue, device=device, data_dir=data_dir, redis_url=redis_url,
                   models=model, config=config)  # fmt: skip
    with _complaints():
        settings = WorkerSettings.model_validate(given)
        settings.specs_of_queue()

    from worker.main import main as work  # after the settings: torch takes seconds

    work(settings)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to paint.")],
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("image.png"),
    model: Annotated[str, typer.Option(help="See `triptych models`.")] = "flux_shapes",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoise steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random if left out.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
) -> None:
    """Paint one image in this process, without a server."""
    from triptych.generate_request import GenerateRequest, GenerateRequestError, to_job

    try:
        job = to_job(GenerateRequest(prompt, model, size, steps, seed))
    except GenerateRequestError as error:
        raise typer.BadParameter(str(error)) from None
    if not output.parent.is_dir():
        raise typer.BadParameter(f"output: the directory {output.parent} does not exist")

    from triptych.generate import paint  # after the checks: torch takes seconds

    with _complaints():
        paint(job, device, output)
    typer.echo(output)


@app.command()
def models() -> None:
    """List the presets that are built in; `-` in place of a task: it cannot be served."""
    typer.echo(f"{'NAME':34}{'TASK':22}{'PARAMETERS':>14}  {'LICENSE':35}HANDLE")
    for preset in PRESETS.values():
        handle = "bundled" if preset.is_bundled else preset.handle
        typer.echo(
            f"{preset.name:34}{preset.task or '-':22}{preset.num_parameters:14,}  "
            f"{preset.license:35}{handle}"
        )


def main() -> None:
    app()
