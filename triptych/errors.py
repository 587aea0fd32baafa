"""Why a command does not start. The message says what to change.

StartError
├── PortTakenError    another program listens on the API's port, or the address is not ours
├── DataDirError      the data directory cannot be made or written
├── DataDirTakenError another `triptych serve` keeps its queue in the same directory
├── DeviceError       a device that was asked for is none of this machine
├── WorkersError      the number of workers asked for does not fit the models
├── ObserveError      the dashboards and rules are not there
└── ValkeyError       the embedded Valkey is not installed, ends at once, or never answers
"""


class StartError(Exception):
    """Raised before the first request could be served."""


class PortTakenError(StartError):
    """Raised where the address to listen on is not to be had."""


class DataDirError(StartError):
    """Raised where nothing can be kept in the data directory."""


class DataDirTakenError(StartError):
    """Raised where a second server would write the same append-only file."""


class DeviceError(StartError):
    """Raised for a device that this machine, or its PyTorch, has not."""


class WorkersError(StartError):
    """Raised for workers that would have nothing to do, or not the task's default model."""


class ObserveError(StartError):
    """Raised where Prometheus and Grafana would have nothing to show."""


class ValkeyError(StartError):
    """Raised where the private server does not come up."""
