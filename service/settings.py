"""What the service process can be told: one field an environment variable, prefix `TRIPTYCH_`.

Built once in `main.py` and passed down. A bad value stops the start and says what is allowed.
"""

from pathlib import Path

from pydantic import ByteSize, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.contract.jobs import Task
from worker.contract.log_lines import LogFormat
from worker.contract.records import RESULT_CACHE_BYTES

_MIB = 1024 * 1024


class ServiceSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TRIPTYCH_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8000, ge=0, le=65535, description="port to listen on; 0 picks a free one"
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="where jobs and records lie"
    )
    data_dir: Path = Field(default=Path("data"), description="images lie in its folder `images`")
    public_base_url: str | None = Field(
        default=None, description="prefix of image URLs; None: the address that the client called"
    )

    playground: bool = Field(default=True, description="whether `/` is a page to try the API on")
    grafana_url: str | None = Field(
        default=None, pattern="^https?://", description="where that page links to Grafana"
    )

    url_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="signs image URLs, the same for all API processes; none: one kept in Redis",
    )

    tasks: frozenset[Task] = Field(
        default=frozenset(),
        description='tasks that readiness waits for, ["images", …]; none: those with workers',
    )
    openai_names: bool = Field(
        default=True,
        description="gpt-image-1, text-embedding-3-small and so on mean the default models",
    )

    max_queue_depth: int = Field(
        default=64,
        ge=1,
        description="waiting jobs per task; beyond, a caller with its share of them gets a 429",
    )
    sync_wait_s: float = Field(
        default=300.0, gt=0, description="longest wait of a synchronous call"
    )
    job_timeout_s: float = Field(
        default=3600.0, gt=0, description="from creation to a job's deadline"
    )
    result_ttl_s: float = Field(
        default=86400.0, ge=1, description="how long a final record is kept"
    )
    # the workers' setting of the same name must agree
    result_cache_bytes: ByteSize = Field(
        default=ByteSize(RESULT_CACHE_BYTES),
        ge=0,
        description="Redis memory for results of jobs whose answer is determined; 0: none is kept",
    )
    shares_runs: bool = Field(
        default=True, description="equal jobs whose answer is determined share one run"
    )
    drain_grace_s: int = Field(default=30, ge=0, description="wait for open requests at shutdown")

    log_format: LogFormat = Field(
        default="text", description="of the log's lines; json: an object a line"
    )

    # 32 MiB: two images of the largest size in base64, or hundreds of ordinary ones
    max_body_bytes: int = Field(default=32 * _MIB, ge=1024, description="largest request body")
    max_image_bytes: int = Field(
        default=10 * _MIB, ge=1, description="largest image to classify or to start from, encoded"
    )
    max_classify_images: int = Field(default=32, ge=1, description="images per classification")
    max_embedding_texts: int = Field(default=2048, ge=1, description="texts per embedding request")
