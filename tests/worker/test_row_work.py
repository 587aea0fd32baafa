"""Batches of rows: what is prepared when, and how each job ends."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
import torch

from tests.worker.jobs import embeddings_job
from worker.batch import BatchKey, Row
from worker.contract.jobs import (
    EmbeddingsJob,
    EmbeddingsResult,
    Failure,
    FailureCode,
    JobState,
    Task,
)
from worker.contract.record import AnyJob, Record
from worker.contract.submission import group_of, num_rows_of
from worker.failures import BadInputError, DeviceLostError
from worker.metrics import WorkerMetrics
from worker.row_work import RowWork
from worker.work import Ending


@dataclass
class Words:
    """A row is a word, its key the length; "bad" cannot be prepared, "boom" breaks its forward."""

    forwards: list[list[str]] = field(default_factory=list)
    preparing_threads: list[str] = field(default_factory=list)
    num_cores: dict[str, int] = field(default_factory=dict)  # by thread
    may_prepare: threading.Event = field(default_factory=threading.Event)
    num_counted: int = 0
    most_rows: int = 99  # that there is memory for; none for "huge"
    lack: Exception = field(default_factory=MemoryError)

    def prepare(self, job: AnyJob) -> list[Row[str]]:
        self.preparing_threads.append(threading.current_thread().name)
        self.num_cores[threading.current_thread().name] = torch.get_num_threads()
        if threading.current_thread() is not threading.main_thread():
            assert self.may_prepare.wait(60)
        assert isinstance(job, EmbeddingsJob)
        if "bad" in job.texts:
            raise BadInputError("input[0]") from ValueError()
        words = [str(text) for text in job.texts]
        return [Row(BatchKey(job.model, (len(word),)), word) for word in words]

    def forward(self, model: str, prepared: Sequence[str]) -> Sequence[str]:  # noqa: ARG002
        self.forwards.append(list(prepared))
        if len(prepared) > self.most_rows or "huge" in prepared:
            raise self.lack
        if "boom" in prepared:
            raise RuntimeError("the forward broke")
        if "gone" in prepared:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return [word.upper() for word in prepared]

    def count(self, model: str, prepared: Sequence[str]) -> None:  # noqa: ARG002
        self.num_counted += len(prepared)

    def result(self, job: AnyJob, rows: Sequence[str]) -> EmbeddingsResult:  # noqa: ARG002
        return EmbeddingsResult(embeddings=tuple(rows), num_tokens=len(rows))

    def warm_up(self, model: str) -> None:
        pass


class Settled:
    """What was settled, call by call."""

    def __init__(self) -> None:
        self.calls: list[list[Ending]] = []

    def __call__(self, endings: Sequence[Ending]) -> None:
        if endings:
            self.calls.append(list(endings))

    def of(self, record: Record) -> object:
        [outcome] = [outcome for call in self.calls for each, outcome in call if each is record]
        return outcome


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def settled() -> Settled:
    return Settled()


@pytest.fixture
def work(words: Words, settled: Settled) -> RowWork[str, str]:
    return RowWork(Task.EMBEDDINGS, words, 4, settled, WorkerMetrics(Task.EMBEDDINGS))


def record_of(*texts: str, model: str = "m") -> Record:
    job = embeddings_job(*texts).model_copy(update={"model": model})
    return Record(
        job=job,
        group=group_of(job),
        num_rows=num_rows_of(job),
        state=JobState.RUNNING,
        attempt=1,
        step=0,
        num_steps=0,
        is_cancel_requested=False,
        started_at=1.0,
        finished_at=None,
        result=None,
        failure=None,
        worker="w",
    )


def run(work: RowWork[str, str]) -> None:
    while not work.is_idle:
        work.advance()


def result(*rows: str) -> EmbeddingsResult:
    return EmbeddingsResult(embeddings=rows, num_tokens=len(rows))


def test_a_job_that_comes_alone_is_prepared_without_another_thread(
    work: RowWork[str, str], words: Words, settled: Settled
) -> None:
    work.add([record := record_of("a", "b")])
    work.advance()
    assert words.preparing_threads == ["MainThread"]
    assert settled.of(record) == result("A", "B")
    assert work.is_idle


def test_the_jobs_of_a_forward_are_settled_together(
    work: RowWork[str, str], words: Words, settled: Settled
) -> None:
    work.add([record_of("a"), record_of("b"), record_of("cc")])
    run(work)
    assert words.forwards == [["a", "b"], ["cc"]]
    assert [len(call) for call in settled.calls] == [2, 1]


def test_the_next_batch_is_prepared_beside_the_forward_of_the_one_before(
    work: RowWork[str, str], words: Words, settled: Settled
) -> None:
    first = [record_of("a", "b"), record_of("c", "d")]
    second = [record_of("e"), record_of("f")]
    work.add([*first, *second])
    work.advance()
    assert words.forwards == [["a", "b", "c", "d"]]
    words.may_prepare.set()
    run(work)
    assert words.forwards[1:] == [["e", "f"]]
    assert len(set(words.preparing_threads)) == 2
    assert [settled.of(record) for record in second] == [result("E"), result("F")]


def test_what_is_prepared_beside_a_forward_takes_one_core(
    work: RowWork[str, str], words: Words
) -> None:
    before = torch.get_num_threads()
    words.may_prepare.set()
    work.add([record_of("a", "b", "c", "d"), record_of("e")])
    run(work)
    assert list(words.num_cores.values()) in ([before, 1], [1, before])
    with ThreadPoolExecutor(1) as others:
        assert others.submit(torch.get_num_threads).result() == before


def test_a_wait_for_what_is_being_prepared_is_short(work: RowWork[str, str], words: Words) -> None:
    work.add([record_of("a", "b", "c", "d"), record_of("e")])
    work.advance()
    work.advance()  # returns, so that the loop can look for jobs
    assert not work.is_idle
    assert len(words.forwards) == 1
    words.may_prepare.set()
    run(work)
    assert words.forwards[1] == ["e"]


def test_a_job_whose_rows_make_several_forwards_ends_with_the_last_of_them(
    work: RowWork[str, str], settled: Settled
) -> None:
    work.add([record := record_of("a", "bb", "c", "dd", "e")])
    run(work)
    assert settled.of(record) == result("A", "BB", "C", "DD", "E")
    assert len(settled.calls) == 1


def test_a_bad_input_ends_its_own_job(work: RowWork[str, str], settled: Settled) -> None:
    work.add([bad := record_of("bad"), good := record_of("good")])
    run(work)
    assert isinstance(settled.of(bad), Failure)
    assert settled.of(good) == result("GOOD")


def test_a_failed_forward_ends_the_jobs_of_its_group_whole(
    work: RowWork[str, str], words: Words, settled: Settled
) -> None:
    work.add([failed := record_of("boom", "a"), other := record_of("b"), same := record_of("four")])
    run(work)
    assert isinstance(settled.of(failed), Failure)
    assert isinstance(settled.of(same), Failure)
    assert settled.of(other) == result("B")
    assert words.forwards == [["boom", "four"], ["b"]]


def test_a_device_that_failed_is_no_fault_of_the_job(
    work: RowWork[str, str], settled: Settled
) -> None:
    work.add([record_of("gone")])
    with pytest.raises(DeviceLostError):
        work.advance()
    assert settled.calls == []


@pytest.mark.parametrize(
    "lack",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=repr,
)
def test_rows_that_do_not_fit_run_by_halves_and_the_next_ones_at_once(
    work: RowWork[str, str], words: Words, settled: Settled, lack: Exception
) -> None:
    words.most_rows, words.lack = 2, lack
    work.add([first := record_of("a", "b", "c"), second := record_of("d")])
    run(work)
    assert settled.of(first) == result("A", "B", "C")
    assert settled.of(second) == result("D")
    assert words.forwards == [["a", "b", "c", "d"], ["a", "b"], ["c", "d"]]
    assert words.num_counted == 4
    work.add([record_of("e", "f", "g"), record_of("longer")])
    run(work)
    assert words.forwards[3:] == [["e", "f"], ["g"], ["longer"]]


def test_after_a_while_as_many_rows_as_ever_are_tried(
    work: RowWork[str, str], words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    words.most_rows = 2
    work.add([record_of("a", "b", "c")])
    run(work)
    words.most_rows = 99
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61.0)
    work.add([record_of("d", "e", "f")])
    run(work)
    assert words.forwards[-1] == ["d", "e", "f"]


def test_the_one_row_that_does_not_fit_alone_fails_alone(
    work: RowWork[str, str], words: Words, settled: Settled
) -> None:
    work.add([small := record_of("tiny"), huge := record_of("huge"), other := record_of("tall")])
    run(work)
    failure = settled.of(huge)
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.GPU_OOM
    assert (settled.of(small), settled.of(other)) == (result("TINY"), result("TALL"))
    assert words.forwards == [
        ["tiny", "huge", "tall"],
        ["tiny"],
        ["huge", "tall"],
        ["huge"],
        ["tall"],
    ]


def test_what_is_given_back_is_not_run(
    work: RowWork[str, str], words: Words, settled: Settled
) -> None:
    words.may_prepare.set()
    work.add([done := record_of("a"), given := record_of("bb"), other := record_of("ccc")])
    work.advance()
    assert {record.id for record in work.give_back()} == {given.id, other.id}
    assert work.is_idle
    assert settled.of(done) == result("A")
    assert words.forwards == [["a"]]
    work.finish()


def test_there_is_room_for_the_batch_that_runs_and_one_ahead(work: RowWork[str, str]) -> None:
    empty = work.room()
    assert (empty.max_jobs, empty.rows_of_new_group, empty.rows) == (8, 8, {})
    work.add([record_of("a", "b", "c"), record_of("d", model="n")])
    room = work.room()
    assert (room.max_jobs, room.rows_of_new_group, room.rows) == (6, 8, {"m": 5, "n": 7})


def test_models_are_in_use_until_their_last_job_has_ended(work: RowWork[str, str]) -> None:
    work.add([record_of("a"), record_of("b", model="n")])
    assert work.models_in_use == {"m", "n"}
    work.advance()
    assert work.models_in_use == {"n"}
    work.advance()
    assert work.models_in_use == set()


def test_side_threads_end_with_the_work(work: RowWork[str, str], words: Words) -> None:
    words.may_prepare.set()
    work.add([record_of("a", "b", "c", "d"), record_of("e")])
    run(work)
    with_it = threading.active_count()
    work.finish()
    assert threading.active_count() < with_it


def test_two_attempts_at_a_job_in_one_worker_end_each_for_itself(
    work: RowWork[str, str], words: Words, settled: Settled
) -> None:
    words.may_prepare.set()
    first_good, first_bad = record_of("a", "bb"), record_of("bad")
    again_good, again_bad = replace(first_good, attempt=2), replace(first_bad, attempt=2)
    work.add([first_good, first_bad])
    work.add([again_good, again_bad])
    run(work)
    assert [settled.of(record) for record in (first_good, again_good)] == [result("A", "BB")] * 2
    assert all(isinstance(settled.of(record), Failure) for record in (first_bad, again_bad))
