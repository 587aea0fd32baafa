"""A model that does nothing, and everything around it: what does a request cost by itself?

`python -m benchmarks.constant_model serve [COUNT]` is `triptych serve` with that model alone, or as
many of the kind, with settings from the environment: its worker works as `worker.main` does, but
every text has the same embedding. With `alone` it answers the same requests by FastAPI without
anything behind it.
"""

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from triptych.settings import ServeSettings
from triptych.supervisor import Supervisor, plan
from triptych.worker_launch import WorkerProgram
from worker.contract.jobs import Pooling, Task, TruncationSide
from worker.contract.model_cards import ModelCard
from worker.model_specs import ModelSpec
from worker.settings import WorkerSettings

if TYPE_CHECKING:  # torch, which only the worker needs
    from torch import Tensor

    from models.fnet.tokenizer import TokenizedText
    from worker.eviction import MemoryNeed
    from worker.loading import Loaded, Report

MODEL = "constant"
WIDTH = 128  # as f_net_shapes'
CARD = ModelCard(
    name=MODEL,
    task=Task.EMBEDDINGS,
    family="FNetBackbone",
    num_parameters=WIDTH,
    memory_bytes=4 * WIDTH,
    dtype="float32",
    device="cpu",
    results_digest="c0" * 32,
    embedding_width=WIDTH,
    max_tokens=512,
    num_special_tokens=2,
    vocabulary_size=1000,
)


class ConstantEmbedder:
    def tokenize(
        self,
        text: str | Sequence[int],  # noqa: ARG002
        truncation: TruncationSide | None = None,  # noqa: ARG002
    ) -> "TokenizedText":
        from models.fnet.tokenizer import TokenizedText

        return TokenizedText((1,), 1)

    def encode(self, batch: Sequence["TokenizedText"]) -> "Tensor":
        import torch

        return torch.eye(1, WIDTH).expand(len(batch), 1, -1)

    def pool(
        self,
        sequence_output: "Tensor",
        batch: Sequence["TokenizedText"],  # noqa: ARG002
        pooling: Pooling,  # noqa: ARG002
        normalizes: bool,  # noqa: ARG002
    ) -> "Tensor":
        return sequence_output[:, 0]


class ConstantLoader:
    def measure(
        self,
        spec: ModelSpec,  # noqa: ARG002
        report: "Report",  # noqa: ARG002
        device_bytes: int | None,  # noqa: ARG002
    ) -> "MemoryNeed":
        from worker.eviction import MemoryNeed

        return MemoryNeed(CARD.memory_bytes)

    def load(
        self,
        spec: ModelSpec,
        report: "Report",  # noqa: ARG002
    ) -> "Loaded[ConstantEmbedder]":
        from worker.loading import Loaded

        return Loaded(ConstantEmbedder(), CARD.model_copy(update={"name": spec.name}))

    def to_host(self, loaded: "Loaded[ConstantEmbedder]") -> None:
        pass

    def to_device(self, loaded: "Loaded[ConstantEmbedder]") -> None:
        pass

    def give_back(self) -> None:
        pass


def main(settings: WorkerSettings) -> None:
    """Be the worker."""
    from worker.device_memory import memory_of
    from worker.main import leave, run

    logging.basicConfig(level=logging.INFO)
    leave(run(settings, ConstantLoader(), memory_of("cpu", settings)))


def names(count: int) -> list[str]:
    """What that many models are called."""
    return [MODEL, *(f"{MODEL}-{number}" for number in range(1, count))]


def serve(count: int = 1) -> None:
    specs = tuple(
        ModelSpec(name=name, handle="made by its worker", task=Task.EMBEDDINGS)
        for name in names(count)
    )
    settings = ServeSettings(models=specs)
    slots = plan(settings, specs)
    Supervisor(settings, specs, slots, WorkerProgram("benchmarks.constant_model")).run()


def serve_alone() -> None:
    """FastAPI as `service.main` runs it: the same body, an answer of the same size."""
    import uvicorn
    from fastapi import FastAPI, Response

    from service.schemas.embeddings import EmbeddingsRequest
    from service.settings import ServiceSettings

    app = FastAPI()
    answer = b'{"object":"list","data":["%s"]}' % (b"x" * 4 * WIDTH)

    @app.get("/readyz")
    async def get_readiness() -> None:
        pass

    @app.post("/v1/embeddings", response_model=None)
    async def create_embeddings(body: EmbeddingsRequest) -> Response:  # noqa: ARG001
        return Response(answer, media_type="application/json")

    port = ServiceSettings().port
    uvicorn.run(app, port=port, access_log=False, server_header=False, log_level="warning")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["serve", count] if count.isdecimal() and int(count) > 0:
            serve(int(count))
        case ["alone"]:
            serve_alone()
        case got:
            sys.exit(f"got {got}; allowed are serve, serve COUNT and alone")
