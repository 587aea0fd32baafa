"""The form of the log: a line of text for people, or a JSON object a line for a log store.

Each message is `event=… key=value …` with its values as arguments of the logger, so the object has
them as they are, numbers as numbers; `-` stands for nothing and is left out.
"""

import json
import logging
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_FIELD = re.compile(r"(?:^|\s)([a-z][a-z0-9_]*)=(%?)")
_CONVERSION = re.compile(r"%(?!%)[^a-zA-Z]*[a-zA-Z]")


def write_logs(form: LogFormat, level: int = logging.INFO) -> None:
    """Write the log of this process to its standard error in this form."""
    if form == "text":
        logging.basicConfig(level=level, format=_TEXT)
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler])


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, then the fields of the message, or `message` where it has none.

    A traceback is the field `traceback`.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **_message(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _message(record: logging.LogRecord) -> dict[str, object]:
    template = record.msg
    is_ours = isinstance(template, str) and template.startswith("event=")
    if not is_ours or not isinstance(record.args, tuple | None):
        return {"message": record.getMessage()}
    return {name: value for name, value in _fields(template, record.args or ()) if value != "-"}


def _fields(template: str, args: tuple[object, ...]) -> Iterator[tuple[str, object]]:
    """What stands behind each `key=`, up to the next: an argument as it is, or a text."""
    left = iter(args)
    starts = [*_FIELD.finditer(template)]
    ends = [found.start() for found in starts[1:]] + [len(template)]
    for found, end in zip(starts, ends, strict=True):
        text = template[found.end(1) + 1 : end].strip()
        num_args = len(_CONVERSION.findall(text))
        its_args = [next(left) for _ in range(num_args)]
        is_whole = num_args == 1 and _CONVERSION.fullmatch(text) is not None
        yield found[1], _plain(text, its_args[0]) if is_whole else text % tuple(its_args)


def _plain(conversion: str, value: object) -> object:
    """A number as the text has it, and all else as text."""
    if isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):  # JSON has no other
        return float(conversion % value) if conversion[-1] in "eEfFgG" else value
    return conversion % (value,)
