"""Install the peers that benchmarks compare with: `python -m benchmarks.peers.install [NAME]…`.

Each environment has the exact packages of `requirements/NAME.txt` and sees those of the
environment that runs this command, so that all compute with one torch, one Pillow and our models.
Knows nothing about what is measured.
"""

import argparse
import logging
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

LOGGER = logging.getLogger(__name__)

FOLDER = Path("build/peers")
ENVIRONMENTS = ("runtimes", "litserve", "ray", "bentoml")
_REQUIREMENTS = Path(__file__).parent / "requirements"


def interpreter(folder: Path, environment: str) -> Path | None:
    """The Python of an environment; None where it is not installed."""
    python = folder / environment / "bin" / "python"
    return python.absolute() if python.exists() else None


def pinned(environment: str) -> dict[str, str]:
    """The versions that it is made of."""
    lines = (_REQUIREMENTS / f"{environment}.txt").read_text().split()
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def install(folder: Path, environment: str) -> None:
    home = folder / environment
    venv.create(home, with_pip=True, clear=True)
    python = home / "bin" / "python"
    (_site_packages(home) / "shared.pth").write_text(sysconfig.get_path("purelib"))
    # no dependencies: the file names them all, and another torch must not come with them
    arguments = ("--quiet", "--no-deps", "-r", str(_REQUIREMENTS / f"{environment}.txt"))
    subprocess.run([python, "-m", "pip", "install", *arguments], check=True)


def _site_packages(home: Path) -> Path:
    paths = {"base": str(home), "platbase": str(home)}
    return Path(sysconfig.get_path("purelib", "venv", vars=paths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENVIRONMENTS)}")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    names = arguments.names or ENVIRONMENTS
    if unknown := [name for name in names if name not in ENVIRONMENTS]:
        sys.exit(f"NAME: got {unknown[0]!r}; allowed: {', '.join(ENVIRONMENTS)}")
    for name in names:
        LOGGER.info("event=install environment=%s folder=%s", name, arguments.folder)
        install(arguments.folder, name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
