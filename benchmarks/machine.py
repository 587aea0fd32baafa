"""What a benchmark ran on."""

import platform
from pathlib import Path


def processor() -> str:
    """Name the CPU as the kernel does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
