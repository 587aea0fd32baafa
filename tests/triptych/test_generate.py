"""One image without a server; what it paints is tested through the command line."""

from pathlib import Path

import pytest

from tests.worker.jobs import image_job
from triptych.errors import DeviceError
from triptych.generate import paint


@pytest.mark.parametrize("device", ["banana", "meta"])
def test_a_device_of_another_kind_is_refused(device: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=f"device: got '{device}'; allowed: cpu or cuda:N"):
        paint(image_job(), device, tmp_path / "image.png")
