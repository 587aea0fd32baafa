"""What `triptych serve` can be told: by flags, the environment (`TRIPTYCH_…`) or a TOML file."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from worker.contract.jobs import Task
from worker.settings import ModelSettings

_DEVICE = re.compile(r"cpu|cuda:\d+")


def _parse_devices(said: object) -> object:
    """`auto`, or the devices by name."""
    if not isinstance(said, str):
        return said
    if said == "auto":
        return None
    devices = tuple(device.strip() for device in said.split(","))
    wrong = [device for device in devices if not _DEVICE.fullmatch(device)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not auto, cpu or cuda:N, nor a list such as cuda:0,cpu")
    twice = [device for device in devices if devices.count(device) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice; once is allowed")
    return devices


def _parse_counts(said: object) -> object:
    """`images=2,classify=1`, or a table."""
    if not isinstance(said, str):
        return said
    counts: dict[str, str] = {}
    for entry in said.split(","):
        task, equals, count = (part.strip() for part in entry.partition("="))
        if not equals or task not in [*Task]:
            raise ValueError(
                f"{entry.strip()!r} is not TASK=NUMBER, where TASK is one of {', '.join(Task)}"
            )
        if task in counts:
            raise ValueError(f"{task!r} stands there twice; once is allowed")
        counts[task] = count
    return counts


class ServeSettings(ModelSettings):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8000, ge=1, le=65_532, description="the API's port; the next ones are for metrics"
    )
    data_dir: Path = Field(default=Path(".triptych"), description="images and the embedded Valkey")
    redis_url: str | None = Field(
        default=None, pattern=r"^(rediss?|unix)://", description="None: start a private Valkey"
    )
    device: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_parse_devices)] = Field(
        default=None,
        description="devices that workers may use, such as cuda:0,cuda:3; auto (None): every GPU, "
        "and the CPU where there is none or none has room",
    )
    workers: Annotated[
        Mapping[Task, Annotated[int, Field(ge=1, le=64)]],
        NoDecode,
        BeforeValidator(_parse_counts),
    ] = Field(
        default={},
        description="how many per task, such as images=2,classify=1; a task that is not named has "
        "one, images one per GPU",
    )
    api_processes: int = Field(
        default=1, ge=1, le=64, description="how many processes of the API share its port"
    )
    observe: bool = Field(
        default=False, description="run Prometheus and Grafana too, those that are installed"
    )
    prometheus_port: int = Field(
        default=9090, ge=1, le=65_535, description="where it listens on this host"
    )
    grafana_port: int = Field(
        default=3000, ge=1, le=65_535, description="where it listens on this host"
    )
    drain_grace_s: int = Field(
        default=30, ge=0, description="how long open requests are waited for at shutdown"
    )
