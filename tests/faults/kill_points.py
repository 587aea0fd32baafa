"""The moments of a job's life at which a process may be killed, or cut off, counted and named.

Installed from outside in the process that is to die: each Redis command, before its bytes are sent
and after its reply was read (the server has done it, and the process has not acted on it), and each
file operation below the data directory, before and after. A point is named by its thread, its
operation, and how often that thread did the same before, so that what other threads do meanwhile
does not change the name. Knows nothing of jobs.
"""

import builtins
import importlib
import io
import os
import pkgutil
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypeAlias

import redis.asyncio.connection
import redis.connection
from redis.exceptions import ConnectionError as RedisConnectionError

from worker import contract

_AWAY_S = 0.4  # longer than a client tries by itself
Side = Literal["before", "after"]
Packed: TypeAlias = bytes | str | Iterable[bytes]  # commands as a client sends them
_PATH_OPERATIONS = ("open", "chmod", "link", "mkdir", "rename", "replace", "unlink", "utime")
_DESCRIPTOR_OPERATIONS = ("fsync", "write")
_COMMAND = re.compile(rb"(?:^|(?<=\r\n))\*[0-9]+\r\n\$[0-9]+\r\n([A-Za-z]+)(?=\r\n)")
_SCRIPT = re.compile(rb"EVALSHA\r\n\$40\r\n([0-9a-f]{40})")


@dataclass(frozen=True, slots=True, order=True)
class KillPoint:
    thread: str
    operation: str
    occurrence: int  # from 1
    side: Side

    @property
    def is_of_redis(self) -> bool:
        return not self.operation.islower()

    def __str__(self) -> str:
        return f"{self.thread} {self.operation} {self.occurrence} {self.side}"

    @classmethod
    def parse(cls, text: str) -> Self:
        thread, operation, occurrence, side = text.split(" ")
        return cls(thread, operation, int(occurrence), "before" if side == "before" else "after")


class Switch:
    """A byte in a file: another process counts its points while it is on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)

    def turn(self, is_on: bool) -> None:
        os.pwrite(self._file, b"1" if is_on else b"0", 0)

    @property
    def is_on(self) -> bool:
        return os.pread(self._file, 1, 0) == b"1"

    def close(self) -> None:
        os.close(self._file)


class Countdown:
    """Writes down each point that is passed, and kills its process at one of them.

    Or it cuts that off from Redis for a while, beginning there (`is_cut`).
    """

    def __init__(
        self, passed: Path, switch: Switch, strike_at: KillPoint | None, is_cut: bool
    ) -> None:
        self._passed = os.open(passed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._write = os.write  # as it was before it was wrapped
        self._switch = switch
        self._strike_at = strike_at
        self._is_cut = is_cut
        self._away_until = 0.0
        self._counts: Counter[tuple[str, str, Side]] = Counter()
        self._lock = threading.Lock()

    def note(self, operation: str, side: Side) -> None:
        if not self._switch.is_on:
            return
        thread = threading.current_thread().name.replace(" ", "-")
        with self._lock:
            self._counts[thread, operation, side] += 1
            point = KillPoint(thread, operation, self._counts[thread, operation, side], side)
            self._write(self._passed, f"{point}\n".encode())
            if point == self._strike_at:
                self._strike()
        if point.is_of_redis and time.monotonic() < self._away_until:
            raise RedisConnectionError("cut off")

    def _strike(self) -> None:
        if self._is_cut:
            self._away_until = time.monotonic() + _AWAY_S
        else:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # with the lock: no other thread comes further than its next point


def points_passed(passed: Path) -> list[KillPoint]:
    return [KillPoint.parse(line) for line in passed.read_text().splitlines()]


def install(countdown: Countdown, data_dir: Path) -> None:
    """Watch this process from now on."""
    calls = _Calls(countdown)
    _watch_redis(calls)
    _watch_async_redis(calls)
    for name in _PATH_OPERATIONS:
        setattr(os, name, _on_path(getattr(os, name), name, countdown, data_dir))
    for name in _DESCRIPTOR_OPERATIONS:
        setattr(os, name, _on_descriptor(getattr(os, name), name, countdown, data_dir))
    reading: Any = _on_path(io.open, "read", countdown, data_dir)
    builtins.open = io.open = reading
    _watch_written_files(countdown, data_dir)


def command_names(packed: bytes | Iterable[bytes]) -> list[str]:
    """The commands of one call as the client packed them; for a script, its own name."""
    sent = packed if isinstance(packed, bytes) else b"".join(packed)
    names = [name.decode().upper() for name in _COMMAND.findall(sent)]
    digests = iter(_SCRIPT.findall(sent))
    return [
        _script_names().get(next(digests).decode(), name) if name == "EVALSHA" else name
        for name in names
    ]


@cache
def scripts() -> Mapping[str, str]:
    """Each Lua program of the contract by the name of its constant."""
    modules = [
        importlib.import_module(f"{contract.__name__}.{module.name}")
        for module in pkgutil.iter_modules(contract.__path__)
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and "redis.call" in value
    }


@cache
def _script_names() -> Mapping[str, str]:
    return {
        sha1(program.encode(), usedforsecurity=False).hexdigest(): f"script:{name}"
        for name, program in scripts().items()
    }


class _Calls:
    """What each connection waits for; a call is over with the last of its replies."""

    def __init__(self, countdown: Countdown) -> None:
        self._countdown = countdown
        self._awaited: dict[int, tuple[str, int]] = {}  # by connection: name, number of replies

    def is_about_to_be_sent(self, packed: bytes | Iterable[bytes]) -> list[str]:
        names = command_names(packed)
        self._countdown.note("+".join(names), "before")
        return names

    def is_sent(self, connection: object, names: list[str]) -> None:
        self._awaited[id(connection)] = "+".join(names), len(names)

    def is_read(self, connection: object) -> None:
        name, num_replies = self._awaited.pop(id(connection), ("", 0))
        if num_replies > 1:
            self._awaited[id(connection)] = name, num_replies - 1
        elif num_replies == 1:
            self._countdown.note(name, "after")


def _watch_redis(calls: _Calls) -> None:
    connection: Any = redis.connection.AbstractConnection
    send, read = connection.send_packed_command, connection.read_response

    def send_packed_command(
        self: object, command: Packed, *args: object, **options: object
    ) -> object:
        packed = _as_list(command)
        names = calls.is_about_to_be_sent(packed)
        reply = send(self, packed, *args, **options)
        calls.is_sent(self, names)
        return reply

    def read_response(self: object, *args: object, **options: object) -> object:
        try:
            return read(self, *args, **options)
        finally:
            calls.is_read(self)

    connection.send_packed_command, connection.read_response = send_packed_command, read_response


def _watch_async_redis(calls: _Calls) -> None:
    connection: Any = redis.asyncio.connection.AbstractConnection
    send, read = connection.send_packed_command, connection.read_response

    async def send_packed_command(
        self: object, command: Packed, *args: object, **options: object
    ) -> object:
        packed = _as_list(command)
        names = calls.is_about_to_be_sent(packed)
        reply = await send(self, packed, *args, **options)
        calls.is_sent(self, names)
        return reply

    async def read_response(self: object, *args: object, **options: object) -> object:
        try:
            return await read(self, *args, **options)
        finally:
            calls.is_read(self)

    connection.send_packed_command, connection.read_response = send_packed_command, read_response


def _as_list(packed: Packed) -> list[bytes]:
    if isinstance(packed, str):
        return [packed.encode()]
    return [packed] if isinstance(packed, bytes) else list(packed)


def _on_path(
    operation: Callable[..., object], name: str, countdown: Countdown, data_dir: Path
) -> Callable[..., object]:
    def watched(path: object, *args: object, **options: object) -> object:
        if not (isinstance(path, str | os.PathLike) and _is_below(os.fspath(path), data_dir)):
            return operation(path, *args, **options)
        countdown.note(name, "before")
        done = operation(path, *args, **options)
        countdown.note(name, "after")
        return done

    return watched


def _on_descriptor(
    operation: Callable[..., object], name: str, countdown: Countdown, data_dir: Path
) -> Callable[..., object]:
    def watched(descriptor: int, *args: object) -> object:
        if not _is_below(_path_of(descriptor), data_dir):
            return operation(descriptor, *args)
        countdown.note(name, "before")
        done = operation(descriptor, *args)
        countdown.note(name, "after")
        return done

    return watched


def _watch_written_files(countdown: Countdown, data_dir: Path) -> None:
    module: Any = os
    fdopen = module.fdopen

    def watched(descriptor: int, *args: object, **options: object) -> object:
        file = fdopen(descriptor, *args, **options)
        return _File(file, countdown) if _is_below(_path_of(descriptor), data_dir) else file

    module.fdopen = watched


class _File:
    """A file that was opened to be written."""

    def __init__(self, file: BinaryIO, countdown: Countdown) -> None:
        self._file = file
        self._countdown = countdown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, content: bytes) -> int:
        """In two halves, so that a kill may come between them."""
        middle = len(content) // 2
        self._file.write(content[:middle])
        self._file.flush()
        self._countdown.note("write", "before")
        self._file.write(content[middle:])
        return len(content)

    def flush(self) -> None:
        self._file.flush()
        self._countdown.note("write", "after")

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _is_below(path: str | bytes, data_dir: Path) -> bool:
    return os.fsdecode(path).startswith(f"{data_dir}/")
