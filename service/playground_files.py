"""The files of the playground as they are sent: the page filled in, its scripts under a digest.

The digest names the content of all scripts, so that a browser may keep them for good, and a new
version of the service never meets an old script. All links are relative: the page works behind any
prefix. The styles are in the page, which shows as soon as it is there. Knows nothing of HTTP but
what a file's bytes and headers say.
"""

import gzip
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "playground"
_STYLES = ("style.css", "status.css", "paint.css", "see.css", "read.css")  # later ones win
_HTML = "text/html; charset=utf-8"
_JAVASCRIPT = "text/javascript; charset=utf-8"


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
    style_hash: str  # of the page's styles, as a Content-Security-Policy names them
    digest: str  # of all scripts
    scripts: Mapping[str, StaticFile]  # by name


def read_playground(version: str, grafana_url: str | None) -> Playground:
    """Read the package's files, and say in the page what it cannot ask the API for."""
    scripts = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.js"))}
    named = b"".join(b"%b\0%b\0" % (name.encode(), text) for name, text in scripts.items())
    digest = sha256(named).hexdigest()[:16]
    styles = "".join((FOLDER / name).read_text(encoding="utf-8") for name in _STYLES)
    values = {
        "scripts": f"playground/{digest}",
        "version": escape(version),
        "grafana_url": escape(grafana_url or ""),
        "styles": styles,  # last, and as they are: what is in them has a digest
    }
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    for name, value in values.items():
        page = page.replace(f"{{{{{name}}}}}", value)
    return Playground(
        page=_static_file(_HTML, page.encode()),
        style_hash=f"sha256-{b64encode(sha256(styles.encode()).digest()).decode()}",
        digest=digest,
        scripts={name: _static_file(_JAVASCRIPT, text) for name, text in scripts.items()},
    )


def _static_file(media_type: str, content: bytes) -> StaticFile:
    return StaticFile(
        media_type,
        content,
        gzip.compress(content, mtime=0),
        f'W/"{sha256(content).hexdigest()[:32]}"',
    )
