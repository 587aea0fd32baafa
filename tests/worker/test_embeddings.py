"""From texts and token ids to the vectors of a result."""

import base64
import struct

import pytest

from models.errors import TextTooLongError
from tests.worker.jobs import embeddings_job
from tests.worker.pipelines import TinyEmbedder, resident
from worker.contract.jobs import EmbeddingsJob, EmbeddingsResult, Task
from worker.embeddings import EmbeddingsTask
from worker.failures import BadInputError
from worker.metrics import WorkerMetrics

MANY_WORDS = "one two three four five six seven eight nine"


@pytest.fixture
def embedder() -> TinyEmbedder:
    return TinyEmbedder()


@pytest.fixture
def task(embedder: TinyEmbedder) -> EmbeddingsTask:
    return EmbeddingsTask(
        resident(embedder, "f_net_shapes", Task.EMBEDDINGS), WorkerMetrics(Task.EMBEDDINGS)
    )


def job_of(*texts: str | tuple[int, ...], **changes: object) -> EmbeddingsJob:
    return embeddings_job().model_copy(update={"texts": texts, **changes})


def run(task: EmbeddingsTask, *jobs: EmbeddingsJob) -> list[EmbeddingsResult]:
    """All jobs in one forward, each with its own result."""
    rows = [task.prepare(job) for job in jobs]
    outputs = iter(
        task.forward("f_net_shapes", [row.prepared for of_job in rows for row in of_job])
    )
    return [
        task.result(job, [next(outputs) for _ in of_job])
        for job, of_job in zip(jobs, rows, strict=True)
    ]


def vectors(result: EmbeddingsResult) -> list[tuple[float, ...]]:
    return [struct.unpack("<2f", base64.b64decode(each)) for each in result.embeddings]


def test_texts_that_are_pooled_differently_share_a_forward(
    task: EmbeddingsTask, embedder: TinyEmbedder
) -> None:
    mean = job_of("four a", normalizes=False)
    first = job_of("four a", normalizes=False, pooling="cls")
    unit = job_of("four a", pooling="cls")

    results = run(task, mean, first, unit)

    assert embedder.batch_sizes == [3]
    assert [vectors(result) for result in results[:2]] == [[(2.0, 5.0)], [(2.0, 4.0)]]
    assert vectors(results[2])[0] == pytest.approx((1 / 5**0.5, 2 / 5**0.5))


def test_token_ids_are_embedded_as_their_text(task: EmbeddingsTask) -> None:
    text, ids = run(task, job_of("four a"), job_of((4, 1)))

    assert ids == text


def test_too_long_a_text_is_named(task: EmbeddingsTask) -> None:
    with pytest.raises(BadInputError) as raised:
        task.prepare(job_of("short", MANY_WORDS))

    assert raised.value.param == "input[1]"
    assert isinstance(raised.value.__cause__, TextTooLongError)


@pytest.mark.parametrize(("side", "letters"), [("right", 32.0), ("left", 33.0)])
def test_what_was_cut_is_told(task: EmbeddingsTask, side: str, letters: float) -> None:
    job = job_of(MANY_WORDS, MANY_WORDS, truncates=True, truncation_side=side, normalizes=False)

    [result] = run(task, job)

    assert result.truncated == (0, 1)
    assert vectors(result) == [(8.0, letters)] * 2
    assert result.num_tokens == 16


def test_what_fits_is_not_cut(task: EmbeddingsTask) -> None:
    [result] = run(task, job_of("a b", "c d", truncates=True))

    assert result.truncated == ()
