"""What is said to grow is what has grown."""

import os
from pathlib import Path

import pytest
from redis import Redis

from benchmarks.growth import Service, parse, sample


@pytest.fixture
def service(redis: Redis, tmp_path: Path) -> Service:
    """Of which this process is all there is."""
    data_dir, log = tmp_path / "data", tmp_path / "log"
    data_dir.mkdir()
    log.write_bytes(b"")
    return Service("http://127.0.0.1:1", os.getpid(), redis, data_dir, log)


def test_what_is_there_is_counted(redis: Redis, service: Service) -> None:
    for key in ("triptych:job:a", "triptych:job:b", "rq:queues"):
        redis.set(key, "x")
    (service.data_dir / "image").write_bytes(b"1234")
    taken = sample(service, "now", 8, None, 0)
    assert taken.redis_keys == {"rq:queues": 1, "triptych:job": 2}
    assert (taken.num_files, taken.file_bytes) == (1, 4)
    assert taken.processes[0].num_files == pytest.approx(len(os.listdir("/proc/self/fd")), abs=3)


def test_the_log_is_counted_by_the_jobs_since_the_sample_before(service: Service) -> None:
    before = sample(service, "before", 8, None, 0)
    service.log.write_bytes(b"x" * 100 + b"y" * 60)
    assert sample(service, "after", 12, before, log=100).log_bytes_a_job == 15.0
    assert sample(service, "idle", 8, before, log=100).log_bytes_a_job is None


def test_a_kind_of_jobs_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--kinds", "embed", "dream"])
    assert "dream" in capsys.readouterr().err
