"""The settings of one worker process: by keyword, from the environment, or from a TOML file."""

import os
import secrets
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import ByteSize, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from models.errors import PresetError
from worker.contract.jobs import Task
from worker.contract.log_lines import LogFormat
from worker.contract.records import RESULT_CACHE_BYTES, RESULT_TTL_S
from worker.model_specs import (
    BUNDLED,
    ModelSpec,
    ModelSpecs,
    PublicName,
    with_aliases,
    with_tasks,
)

_PREFIX = "TRIPTYCH_"
TEXT_CACHE_BYTES = 2**28  # 60 prompts of FLUX.1 [dev], at 4.2 MB
SERVE_ALONE = (  # of the settings of `triptych serve`
    *("host", "port", "workers", "api_processes"),
    *("observe", "prometheus_port", "grafana_port"),
)


class ModelSettings(BaseSettings):
    """What every process that knows the models is told of them, and of its log.

    A keyword wins over the environment, the environment over the TOML file `config`.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    config: Path | None = Field(default=None, description="a TOML file with any of these settings")
    log_format: LogFormat = Field(
        default="text", description="of the log's lines; json: an object a line"
    )
    # what the whole installation serves; a worker takes those that are for its queue
    models: ModelSpecs = Field(
        default=BUNDLED,
        description="names, NAME=HANDLE, handles, directories or files, separated by commas; the "
        "first of a task is its default",
    )
    model_aliases: Mapping[PublicName, str] = Field(
        default={}, description="further public names of models, alias to name"
    )

    @model_validator(mode="after")
    def _aliases_fit(self) -> Self:
        with_aliases(self.models, self.model_aliases)
        return self

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """The models, each with its aliases."""
        return with_aliases(self.models, self.model_aliases)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # there is no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # nor this directory
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(init_settings, InitSettingsSource), "pydantic-settings changed"
        file = init_settings.init_kwargs.get("config") or os.environ.get(f"{_PREFIX}CONFIG")
        sources = (init_settings, env_settings)
        return (*sources, _toml_source(settings_cls, Path(file))) if file else sources


def _toml_source(kind: type[BaseSettings], file: Path) -> PydanticBaseSettingsSource:
    """What the file says for this process; one file is for `triptych serve` and its workers.

    Raises SettingsError for a file that cannot be read, or that says what no process is told.
    """
    try:
        file.open("rb").close()
        source = TomlConfigSettingsSource(kind, file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"config: {file}: {error}") from error
    allowed = {*WorkerSettings.model_fields, *SERVE_ALONE} - {"config", "queue", "worker_name"}
    if unknown := sorted(source.toml_data.keys() - allowed):
        known = ", ".join(sorted(allowed))
        raise SettingsError(f"config: {file}: {unknown[0]} is no setting; allowed: {known}")
    own = {name: said for name, said in source.toml_data.items() if name in kind.model_fields}
    return InitSettingsSource(kind, own)


class WorkerSettings(ModelSettings):
    redis_url: str
    queue: Task  # the one queue that this process serves
    # by which the others and a supervisor know it; None: it takes one that nobody has had
    worker_name: str | None = Field(default=None, min_length=1, max_length=200)
    data_dir: Path  # the images go to its folder `images`
    # auto: cuda:0 if there is one
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda:\d+)$")
    # of torch on the CPU; None: as torch decides
    num_threads: int | None = Field(default=None, ge=1)
    metrics_host: str = "127.0.0.1"  # where metrics listen, if they have a port
    metrics_port: int | None = Field(default=None, ge=1, le=65_535)  # None: no metrics are served
    # jobs drained at once, and rows of one forward
    max_batch: int = Field(default=32, ge=1, le=256)
    # a job that loses so many workers is to blame itself
    max_attempts: int = Field(default=3, ge=1)
    # how long a final record is kept; the API's setting of the same name must agree
    result_ttl_s: float = Field(default=RESULT_TTL_S, ge=1)
    # a silent worker loses its jobs after this time
    lease_s: float = Field(default=12.0, gt=0)
    # after SIGTERM: what is not done by then is given back, for other workers
    drain_grace_s: float = Field(default=30.0, ge=0)
    # a step, forward or store that takes longer hangs, and its process ends
    hang_s: float = Field(default=600.0, gt=0)
    # after which a model that could not be loaded is tried again; doubled each time, to 10 minutes
    load_retry_s: float = Field(default=30.0, ge=0)
    # for all models of this worker and their work, such as 20GB; None: what the device has free,
    # less the reserve, and no limit on the CPU
    memory_budget: ByteSize | None = Field(default=None, gt=0)
    # of the device's memory, for CUDA itself and for what is not counted
    memory_reserve: ByteSize = Field(default=ByteSize(10**9), ge=0)
    # of the host's memory, for what is streamed to a GPU and models that left it; None: four fifths
    # of what is free
    host_memory_budget: ByteSize | None = Field(default=None, ge=0)
    # of the host's memory, for the text features of the last prompts; 0: none are kept
    text_cache_bytes: ByteSize = Field(default=ByteSize(TEXT_CACHE_BYTES), ge=0)
    # in Redis, for the results of jobs whose answer is determined; 0: none are kept; the API's
    # setting of the same name must agree
    result_cache_bytes: ByteSize = Field(default=ByteSize(RESULT_CACHE_BYTES), ge=0)
    # how long models in use keep another, that has jobs, from taking their memory
    swap_patience_s: float = Field(default=5.0, ge=0)
    heartbeat_s: float = Field(default=3.0, gt=0)

    def specs_of_queue(self) -> tuple[ModelSpec, ...]:
        """The models for the queue, the default first, each with its task.

        Raises PresetError where there are none, and for a checkpoint whose task cannot be told.
        """
        specs = with_tasks(self.specs)
        ours = tuple(spec for spec in specs if spec.task is self.queue)
        if not ours:
            got = ", ".join(f"{spec.name} ({spec.task})" for spec in specs)
            raise PresetError(f"models: got {got}; none is for {self.queue}")
        return ours


def new_worker_name(prefix: str) -> str:
    """A name that no worker has had, on any host."""
    return f"{prefix}-{socket.gethostname()}-{secrets.token_hex(4)}"
