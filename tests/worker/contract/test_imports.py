"""What the service may import from here loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

CONTRACT = Path(__file__).parents[3] / "worker" / "contract"


def test_the_contract_loads_no_torch() -> None:
    modules = [f"worker.contract.{path.stem}" for path in sorted(CONTRACT.glob("[!_]*.py"))]
    assert len(modules) >= 4
    program = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"
    fresh = subprocess.run(
        [sys.executable, "-c", program], cwd=CONTRACT.parents[1], capture_output=True, check=True
    )
    assert fresh.stdout == b"False\n"
