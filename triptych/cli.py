"""The command line. Each command imports what it needs when it runs: `--help` loads no torch."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from models.presets import PRESETS
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


def _given(**flags: object) -> dict[str, Any]:
    """The flags that were typed, for a settings class that checks them and reads the others from
    the environment."""
    return {name: value for name, value in flags.items() if value is not None}


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    device: Device = None,
) -> None:
    """Run everything on this host: the queue, the API and one worker per task."""
    from triptych.settings import ServeSettings
    from triptych.supervisor import PortTakenError, Supervisor

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = _given(host=host, port=port, data_dir=data_dir, redis_url=redis_url, device=device)
    try:
        Supervisor(ServeSettings(**given)).run()
    except PortTakenError as error:
        raise typer.BadParameter(str(error), param_hint="--port") from None


@app.command()
def api(
    host: Host = None, port: Port = None, data_dir: DataDir = None, redis_url: RedisUrl = None
) -> None:
    """Run the HTTP side alone."""
    from service.main import main as serve_api
    from service.settings import ServiceSettings

    given = _given(host=host, port=port, data_dir=data_dir, redis_url=redis_url)
    serve_api(ServiceSettings(**given))


@app.command()
def worker(
    queue: Annotated[Task, typer.Option(help="The one queue to serve.")],
    device: Device = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Run one worker: one process, one queue, one device."""
    from worker.main import main as work
    from worker.settings import WorkerSettings

    given = _given(queue=queue, device=device, data_dir=data_dir, redis_url=redis_url)
    work(WorkerSettings(**given))


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    width, separator, height = text.partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT", param_hint="--size")
    return int(width), int(height)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to paint.")],
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("picture.png"),
    model: Annotated[str, typer.Option()] = "flux_shapes",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoise steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random if left out.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
) -> None:
    """Paint one picture in this process, without a server."""
    from triptych.generate import Wish, paint

    width, height = _size(size)
    try:
        paint(Wish(prompt, model, width, height, steps, seed, device), output)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(output)


@app.command()
def models() -> None:
    """List the presets that are built in."""
    for preset in PRESETS.values():
        typer.echo(f"{preset.name:16}{preset.task.value:22}{preset.description}")


def main() -> None:
    app()
