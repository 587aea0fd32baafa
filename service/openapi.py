"""Write `openapi.yaml` from the app: `python -m service.openapi [FILE]`."""

import sys
from pathlib import Path

import yaml

from service.main import create_app
from service.settings import ServiceSettings

DEFAULT_PATH = Path(__file__).parents[1] / "openapi.yaml"


def render() -> str:
    """The app's own description; the same whatever the settings."""
    schema = create_app(ServiceSettings()).openapi()
    return yaml.safe_dump(schema, sort_keys=False, allow_unicode=True, width=100)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PATH
    path.write_text(render(), encoding="utf-8")
