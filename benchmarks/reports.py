"""What a benchmark measured, said and kept as JSON."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def publish(report: "DataclassInstance", output: Path | None) -> None:
    """Print a report, and write it where a file is named."""
    text = json.dumps(asdict(report), indent=2) + "\n"
    sys.stdout.write(text)
    if output is not None:
        output.write_text(text)
