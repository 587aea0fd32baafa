"""The log as JSON: the fields of our lines with their types, and everybody else's lines whole."""

import json
import logging
import sys

import pytest

from worker.contract.jobs import Task
from worker.contract.log_lines import JsonFormatter


def line(template: str, *args: object, exc_info: object = None) -> dict[str, object]:
    given = exc_info if isinstance(exc_info, tuple) else None
    record = logging.LogRecord("worker.x", logging.INFO, "x.py", 1, template, args, given)
    said: dict[str, object] = json.loads(JsonFormatter().format(record))
    return said


def fields(template: str, *args: object) -> dict[str, object]:
    said = line(template, *args)
    return {name: said[name] for name in said.keys() - {"time", "level", "logger"}}


def test_a_line_says_when_how_bad_and_where() -> None:
    said = line("event=ready")
    assert (said["level"], said["logger"], said["event"]) == ("info", "worker.x", "ready")
    assert str(said["time"]).endswith("+00:00")


def test_values_keep_their_types() -> None:
    said = fields(
        "event=job_ended job=%s task=%s attempt=%d run_s=%.3f", "j", Task.IMAGES, 2, 0.12345
    )
    assert said == {
        "event": "job_ended",
        "job": "j",
        "task": "images",
        "attempt": 2,
        "run_s": 0.123,
    }


def test_what_json_has_no_number_for_is_text() -> None:
    assert fields("event=x ms=%.1f", float("inf")) == {"event": "x", "ms": "inf"}


def test_a_value_cannot_pretend_to_be_a_field() -> None:
    said = fields("event=request request_id=%s job=%s", 'x job=fake "\n', "j")
    assert said == {"event": "request", "request_id": 'x job=fake "\n', "job": "j"}


def test_nothing_is_left_out() -> None:
    assert fields("event=request job=%s trace_id=%s", "-", "-") == {"event": "request"}


def test_a_value_of_several_words_is_one_field() -> None:
    said = fields("event=gpus_unused num_gpus=%d reason=PyTorch is a CPU build", 2)
    assert said == {"event": "gpus_unused", "num_gpus": 2, "reason": "PyTorch is a CPU build"}


@pytest.mark.parametrize("template", ["Started server process [%s]", "100 percent=%s"])
def test_a_line_of_others_is_its_message(template: str) -> None:
    assert fields(template, 7) == {"message": template % 7}


def test_a_traceback_is_within_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        said = line("event=unhandled", exc_info=sys.exc_info())
    assert "ValueError: broken" in str(said["traceback"])
