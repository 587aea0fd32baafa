"""What a benchmark measured, said and kept as JSON, with when and with which packages."""

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import PACKAGES, now, versions_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def publish(report: "DataclassInstance", output: Path | None, table: str | None = None) -> None:
    """Print a report, or the table that says it, and write it where a file is named."""
    versions = {"python": platform.python_version(), **versions_of(PACKAGES)}
    said = {"date": now(), "versions": versions, **asdict(report)}
    text = json.dumps(said, indent=2) + "\n"
    sys.stdout.write(text if table is None else table)
    if output is not None:
        output.write_text(text)


def table_of(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Set cells under their header: words to the left, numbers to the right; None is a dash."""
    cells = [[*map(_cell, row)] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    is_word = [any(isinstance(row[column], str) for row in rows) for column in range(len(header))]
    lines = []
    for row in cells:
        aligned = (
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(row, widths, is_word, strict=True)
        )
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
