"""Embeddings jobs: texts or token ids in, vectors out, as little-endian float32 in base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from worker.batch import BatchKey, Row
from worker.contract.jobs import EmbeddingsJob, EmbeddingsResult, Pooling, Task, TruncationSide
from worker.contract.record import AnyJob
from worker.failures import BadInputError
from worker.metrics import WorkerMetrics
from worker.residency import Residency

if TYPE_CHECKING:  # its import is slow, and other queues' workers do without
    from models.fnet.tokenizer import TokenizedText


class Embedder(Protocol):
    """The part of `TextEmbedder` that jobs need."""

    def tokenize(
        self, text: str | Sequence[int], truncation: TruncationSide | None = None
    ) -> TokenizedText:
        """Raises TextTooLongError."""

    def encode(self, batch: Sequence[TokenizedText]) -> Tensor:
        """Texts of one padded length to [B, L, D]."""

    def pool(
        self,
        sequence_output: Tensor,
        batch: Sequence[TokenizedText],
        pooling: Pooling,
        normalizes: bool,
    ) -> Tensor:
        """[B, L, D] to [B, D] float32."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is made of a text's tokens; texts of several kinds share a forward."""

    pooling: Pooling
    normalizes: bool


@dataclass(frozen=True, slots=True)
class PreparedText:
    tokens: TokenizedText
    kind: _Kind


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    encoded: str
    num_tokens: int
    is_truncated: bool


class EmbeddingsTask:
    def __init__(self, residency: Residency[Embedder], metrics: WorkerMetrics) -> None:
        self._residency = residency
        self._metrics = metrics

    def prepare(self, job: AnyJob) -> list[Row[PreparedText]]:
        assert isinstance(job, EmbeddingsJob), f"a {job.task} job to embed: this is a bug"
        return _rows(job, self._residency.get(job.model))

    def forward(self, model: str, prepared: Sequence[PreparedText]) -> list[EmbeddedText]:
        texts = [text.tokens for text in prepared]
        embedder = self._residency.get(model)
        sequence_output = embedder.encode(texts)
        vectors = {
            kind: embedder.pool(sequence_output, texts, kind.pooling, kind.normalizes)
            .float()
            .cpu()
            .numpy()
            .astype("<f4", copy=False)
            for kind in {text.kind for text in prepared}
        }
        return [
            EmbeddedText(
                base64.b64encode(vectors[text.kind][row].tobytes()).decode(),
                text.tokens.num_tokens,
                text.tokens.is_truncated,
            )
            for row, text in enumerate(prepared)
        ]

    def result(
        self,
        job: AnyJob,  # noqa: ARG002  # the rows say it all
        rows: Sequence[EmbeddedText],
    ) -> EmbeddingsResult:
        return EmbeddingsResult(
            embeddings=tuple(row.encoded for row in rows),
            num_tokens=sum(row.num_tokens for row in rows),
            truncated=tuple(index for index, row in enumerate(rows) if row.is_truncated),
        )

    def count(self, model: str, prepared: Sequence[PreparedText]) -> None:
        num_tokens = sum(text.tokens.num_tokens for text in prepared)
        num_padded = sum(len(text.tokens.token_ids) for text in prepared)
        self._metrics.embedding_tokens.labels(model).inc(num_tokens)
        self._metrics.batch_padding.labels(Task.EMBEDDINGS).observe(1 - num_tokens / num_padded)

    def warm_up(self, model: str) -> None:
        embedder = self._residency.get(model)
        texts = [embedder.tokenize("warm up")]
        embedder.pool(embedder.encode(texts), texts, "mean", True)


def _rows(job: EmbeddingsJob, embedder: Embedder) -> list[Row[PreparedText]]:
    kind = _Kind(job.pooling, job.normalizes)
    truncation = job.truncation_side if job.truncates else None
    rows = []
    for index, text in enumerate(job.texts):
        try:
            tokens = embedder.tokenize(text, truncation)
        except Exception as error:
            raise BadInputError(f"input[{index}]") from error
        # the padded length is part of the key: FNet mixes the padding into every token
        key = BatchKey(job.model, (len(tokens.token_ids),))
        rows.append(Row(key, PreparedText(tokens, kind)))
    return rows
