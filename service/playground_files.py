"""The files of the playground as they are sent: the page filled in, its assets under a digest.

The digest names the content of all assets, so that a browser may keep them for good, and a new
version of the service never meets an old script. All links are relative: the page works behind any
prefix. Knows nothing of HTTP but what a file's bytes and headers say.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "playground"
_PAGE = "index.html"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file's content, plain and compressed, and by what clients know it again."""

    media_type: str
    content: bytes
    gzipped: bytes
    etag: str  # weak: of both codings


@dataclass(frozen=True, slots=True)
class Playground:
    page: StaticFile
    digest: str  # of all assets
    assets: Mapping[str, StaticFile]  # by name


def read_playground(version: str, grafana_url: str | None) -> Playground:
    """Read the package's files, and say in the page what it cannot ask the API for."""
    texts = {
        path.name: path.read_bytes()
        for path in sorted(FOLDER.iterdir())
        if path.suffix in _MEDIA_TYPES
    }
    page = texts.pop(_PAGE).decode()
    named = b"".join(b"%b\0%b\0" % (name.encode(), text) for name, text in texts.items())
    digest = sha256(named).hexdigest()[:16]
    values = {
        "assets": f"playground/{digest}",
        "version": version,
        "grafana_url": grafana_url or "",
    }
    for name, value in values.items():
        page = page.replace(f"{{{{{name}}}}}", escape(value))
    assets = {name: _static_file(name, text) for name, text in texts.items()}
    return Playground(_static_file(_PAGE, page.encode()), digest, assets)


def _static_file(name: str, content: bytes) -> StaticFile:
    return StaticFile(
        _MEDIA_TYPES[Path(name).suffix],
        content,
        gzip.compress(content, mtime=0),
        f'W/"{sha256(content).hexdigest()[:32]}"',
    )
