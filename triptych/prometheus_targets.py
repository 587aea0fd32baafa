"""Where Prometheus finds the workers' metrics: a file for its file-based service discovery.

Format: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from triptych.address import url_of
from triptych.errors import DataDirError
from triptych.worker_slots import WorkerSlot

FILE_NAME = "prometheus-targets.json"


def write_targets(data_dir: Path, host: str, ports: Mapping[WorkerSlot, int]) -> None:
    """Write the file as a whole: Prometheus reads it again whenever it changes."""
    targets = [
        {
            "targets": [url_of(host, port).removeprefix("http://")],
            "labels": {"task": slot.task.value, "worker": slot.name, "device": slot.device},
        }
        for slot, port in ports.items()
    ]
    unfinished = data_dir / f".{FILE_NAME}.{os.getpid()}"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(targets, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(data_dir / FILE_NAME)
    except OSError as error:
        raise DataDirError(f"cannot write in data directory {data_dir}: {error.strerror}") from None
