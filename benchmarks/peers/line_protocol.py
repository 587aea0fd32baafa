"""One line asks a process to compute, one line of JSON answers: who computes when is decided here.

A benchmark holds one process per contestant, each in its own environment, and asks them in turn, so
that only one of them computes at a time. Knows nothing about models.

    load CASE   {"outputs": FILE} or {"unavailable": WHY}   what to compute, and what comes out once
    run COUNT   {"seconds": [...]}                          computed COUNT times
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TextIO

import numpy as np
import numpy.typing as npt

Outputs = npt.NDArray[np.float32]
Compute = Callable[[], Outputs]
Load = Callable[[str], Compute]


class UnavailableError(Exception):
    """Raised where a contestant cannot compute a case, and by a process that has ended."""


def answer(requests: Iterable[str], answers: IO[str], folder: Path, load: Load) -> None:
    """Be the process: answer every line, the last loaded case being the one that is run."""
    compute: Compute | None = None
    for request in requests:
        verb, _, argument = request.strip().partition(" ")
        if verb == "load":
            compute = None  # its memory is free before the next one takes some
            try:
                compute = load(argument)
                said: dict[str, object] = {"outputs": _saved(compute(), folder)}
            except Exception as error:
                compute = None
                first_line = str(error).strip().partition("\n")[0]
                said = {"unavailable": f"{type(error).__name__}: {first_line}"}
        elif verb == "run" and compute is not None:
            said = {"seconds": [_seconds(compute) for _ in range(int(argument))]}
        else:
            said = {"unavailable": f"got {request.strip()!r}; allowed: load CASE, then run COUNT"}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


def own_answers() -> TextIO:
    """Standard output for the answers alone; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _seconds(compute: Compute) -> float:
    started = time.perf_counter()
    compute()
    return time.perf_counter() - started


def _saved(outputs: Outputs, folder: Path) -> str:
    file = folder / f"outputs_{os.getpid()}.npy"
    np.save(file, outputs)
    return str(file)


@dataclass(slots=True)
class Contestant:
    """A process that answers. It ends with the block that it is used in."""

    python: Path
    arguments: Sequence[str]
    log: Path
    _process: subprocess.Popen[str] | None = None
    _folder: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)

    def __enter__(self) -> "Contestant":
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [self.python, *self.arguments, self._folder.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None, "this is a bug: not started"
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def begin_load(self, case: str) -> None:
        """Have it load a case while others load theirs; `loaded` waits for it."""
        self._ask(f"load {case}")

    def loaded(self) -> Outputs:
        """Raises UnavailableError."""
        outputs: Outputs = np.load(str(self._answer("outputs")))
        return outputs

    def run(self, count: int) -> list[float]:
        """Raises UnavailableError."""
        self._ask(f"run {count}")
        seconds = self._answer("seconds")
        assert isinstance(seconds, list), "this is a bug: no list of seconds"
        return seconds

    def _ask(self, request: str) -> None:
        assert self._process is not None, "this is a bug: not started"
        assert self._process.stdin is not None, "this is a bug: no pipe"
        with suppress(BrokenPipeError):  # it has ended; who waits for the answer is told so
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()

    def _answer(self, key: str) -> object:
        assert self._process is not None, "this is a bug: not started"
        assert self._process.stdout is not None, "this is a bug: no pipe"
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            last = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise UnavailableError(f"its process ended with status {status}: {last}")
        answered: dict[str, object] = json.loads(line)
        if key not in answered:
            raise UnavailableError(str(answered["unavailable"]))
        return answered[key]


def main(load: Load) -> None:
    """Be the process that a Contestant starts, whose last argument is a folder for its outputs."""
    answer(sys.stdin, own_answers(), Path(sys.argv[-1]), load)
