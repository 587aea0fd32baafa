"""The settings of one worker process, from the environment (`TRIPTYCH_…`) or by keyword."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.presets import BUNDLED_NAMES, PRESETS, PresetTask, names_for, servable
from worker.contract.jobs import Task
from worker.contract.model_names import ModelNames
from worker.contract.records import RESULT_TTL_S

PRESET_TASKS = {
    Task.IMAGES: PresetTask.TEXT_TO_IMAGE,
    Task.CLASSIFY: PresetTask.IMAGE_CLASSIFICATION,
    Task.EMBEDDINGS: PresetTask.EMBEDDING,
}


class WorkerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TRIPTYCH_", frozen=True)

    redis_url: str
    queue: Task  # the one queue that this process serves
    data_dir: Path  # the pictures go to its folder `images`
    # auto: cuda:0 if there is one
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda:\d+)$")
    # what the whole installation serves, a,b,c; this process serves those that are for its queue
    models: Annotated[ModelNames, AfterValidator(servable)] = BUNDLED_NAMES
    # of torch on the CPU; None: as torch decides
    num_threads: int | None = Field(default=None, ge=1)
    metrics_host: str = "127.0.0.1"  # where metrics listen, if they have a port
    metrics_port: int | None = Field(default=None, ge=1, le=65_535)  # None: no metrics are served
    # jobs drained at once, and rows of one forward
    max_batch: int = Field(default=32, ge=1, le=256)
    # a job that loses so many workers is to blame itself
    max_attempts: int = Field(default=3, ge=1)
    # a silent worker loses its jobs after this time
    # how long a final record is kept; the API's setting of the same name must agree
    result_ttl_s: float = Field(default=RESULT_TTL_S, ge=1)
    lease_s: float = Field(default=15.0, gt=0)
    heartbeat_s: float = Field(default=3.0, gt=0)

    @property
    def served_models(self) -> tuple[str, ...]:
        """The presets for the queue, the default first."""
        return names_for(PRESET_TASKS[self.queue], self.models)

    @model_validator(mode="after")
    def _serve_something(self) -> Self:
        if not self.served_models:
            allowed = ", ".join(names_for(PRESET_TASKS[self.queue], PRESETS))
            got = ",".join(self.models)
            raise ValueError(f"models: got {got!r}, none for {self.queue}; allowed: {allowed}")
        return self


def settings_of_process(arguments: Sequence[str] | None = None) -> WorkerSettings:
    """Read the environment, and the queue from the command line, where `ps` shows it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queue", required=True, help="the one queue to serve")
    return WorkerSettings.model_validate(vars(parser.parse_args(arguments)))
