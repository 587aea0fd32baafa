"""What `triptych serve` can be told: by flags, the environment (`TRIPTYCH_…`) or a TOML file."""

from pathlib import Path

from pydantic import Field

from worker.settings import ModelSettings


class ServeSettings(ModelSettings):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8000, ge=1, le=65_532, description="the API's port; the next three are for metrics"
    )
    data_dir: Path = Field(default=Path(".triptych"), description="images and the embedded Valkey")
    redis_url: str | None = Field(
        default=None, pattern=r"^(rediss?|unix)://", description="None: start a private Valkey"
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda:\d+)$", description="of the workers"
    )
    drain_grace_s: int = Field(
        default=30, ge=0, description="how long open requests are waited for at shutdown"
    )
