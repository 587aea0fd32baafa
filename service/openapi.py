"""Write `openapi.yaml` from the app: `python -m service.openapi [FILE]`."""

import sys
from pathlib import Path

import yaml

from service.main import create_app
from service.settings import ServiceSettings

DEFAULT_PATH = Path(__file__).parents[1] / "openapi.yaml"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they read."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def render() -> str:
    """The app's own description; the same whatever the settings."""
    schema = create_app(ServiceSettings()).openapi()
    return yaml.dump(schema, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PATH
    path.write_text(render(), encoding="utf-8")
