"""Embeddings jobs: texts in, unit vectors out, as little-endian float32 in base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from worker.batch import BatchKey, Row
from worker.contract.jobs import EmbeddingsJob, EmbeddingsResult
from worker.contract.record import AnyJob
from worker.failures import BadInputError
from worker.metrics import WorkerMetrics
from worker.residency import Residency

if TYPE_CHECKING:  # its import is slow, and other queues' workers do without
    from models.fnet.tokenizer import TokenizedText


class Embedder(Protocol):
    """The part of `TextEmbedder` that jobs need."""

    def tokenize(self, text: str) -> TokenizedText:
        """Raises TextTooLongError."""

    def embed(self, batch: Sequence[TokenizedText]) -> Tensor:
        """Texts of one padded length to [B, D] float32, each of length 1."""


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    encoded: str
    num_tokens: int


class EmbeddingsTask:
    def __init__(self, residency: Residency[Embedder], metrics: WorkerMetrics) -> None:
        self._residency = residency
        self._metrics = metrics

    def prepare(self, job: AnyJob) -> list[Row[TokenizedText]]:
        assert isinstance(job, EmbeddingsJob), f"a {job.task} job to embed: this is a bug"
        embedder = self._residency.get(job.model)
        with self._metrics.stage_duration.labels(job.model, "tokenize").time():
            return [_row(job, index, text, embedder) for index, text in enumerate(job.texts)]

    def forward(self, model: str, prepared: Sequence[TokenizedText]) -> list[EmbeddedText]:
        with self._metrics.stage_duration.labels(model, "forward").time():
            vectors = self._residency.get(model).embed(prepared).float().cpu().numpy()
        self._metrics.embedding_tokens.labels(model).inc(sum(text.num_tokens for text in prepared))
        return [
            EmbeddedText(base64.b64encode(vector.astype("<f4").tobytes()).decode(), text.num_tokens)
            for vector, text in zip(vectors, prepared, strict=True)
        ]

    def result(
        self,
        job: AnyJob,  # noqa: ARG002  # the rows say it all
        rows: Sequence[EmbeddedText],
    ) -> EmbeddingsResult:
        return EmbeddingsResult(
            embeddings=tuple(row.encoded for row in rows),
            num_tokens=sum(row.num_tokens for row in rows),
        )

    def warm_up(self, model: str) -> None:
        embedder = self._residency.get(model)
        embedder.embed([embedder.tokenize("warm up")])


def _row(job: AnyJob, index: int, text: str, embedder: Embedder) -> Row[TokenizedText]:
    try:
        tokens = embedder.tokenize(text)
    except Exception as error:
        raise BadInputError(f"input[{index}]") from error
    # the padded length is part of the key: FNet mixes the padding into every token
    return Row(BatchKey(job.model, (len(tokens.token_ids),)), tokens)
