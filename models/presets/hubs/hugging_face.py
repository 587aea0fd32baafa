"""Presets on Hugging Face: `hf://ORG/NAME[@REVISION]`, through huggingface_hub.

The client keeps a listing of every commit it has seen, so the second fetch of a preset chooses its
files without a request, and an offline one knows what is missing. The client trusts what the server
sends; large files are hashed here, once, after they came.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from http import HTTPStatus
from pathlib import Path

import httpx2
from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from models.checkpoints.preset_files import CONFIG_FILE, DIFFUSERS_INDEX_FILE
from models.errors import (
    AccessError,
    DigestError,
    DownloadError,
    OfflineError,
    PresetError,
    UnknownPresetError,
)
from models.presets.file_selection import Lora, Part, choose_files

ADDRESS = re.compile(r"(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>.+))?")
SHA256 = re.compile(r"[0-9a-f]{64}")
# The first request: it brings the listing. `.gitattributes` is in every repository.
FIRST_FILES = (CONFIG_FILE, DIFFUSERS_INDEX_FILE, ".gitattributes")
DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def fetch(
    handle: str, address: str, part: Part | Lora, on_progress: Callable[[int, int], None]
) -> Path:
    """Download what a part needs and give the snapshot's directory; see `handles.fetch`."""
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise PresetError(f"{handle} is malformed; the form is hf://ORG/NAME[@REVISION]")
    repository = parts["repository"]
    with _failures(handle):
        snapshot = _download(repository, parts["revision"], FIRST_FILES)
        chosen = choose_files(_names(repository, snapshot), part, handle)
        missing = [name for name in chosen if not (snapshot / name).exists()]
        if missing:
            _download(repository, snapshot.name, missing, _bar(on_progress))
    for name in missing:
        _verify(handle, snapshot / name)
    return snapshot


def _download(
    repository: str, revision: str | None, names: Sequence[str], bar: type[tqdm] | None = None
) -> Path:
    patterns = [escape(name) for name in names]
    return Path(
        snapshot_download(repository, revision=revision, allow_patterns=patterns, tqdm_class=bar)
    )


def _bar(on_progress: Callable[[int, int], None]) -> type[tqdm]:
    """The client's own progress bar, which also tells us what it counts where that is bytes."""

    class Bar(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
            self._counts_bytes = kwargs.get("unit") == "B"
            self._done = 0.0  # without a terminal the client's bar does not count

        def update(self, n: float | None = 1) -> bool | None:
            self._done += n or 0
            if self._counts_bytes and self.total:
                on_progress(int(self._done), int(self.total))
            shown: bool | None = super().update(n)
            return shown

    return Bar


def _names(repository: str, snapshot: Path) -> list[str]:
    """Name all files of a commit, also those that are not in the cache."""
    try:
        files = get_cached_repo_tree(repository, revision=snapshot.name)
    except CachedRepoTreeNotFoundError:  # offline, and an older client filled the cache
        held = (file for file in snapshot.rglob("*") if file.is_file())
        return [file.relative_to(snapshot).as_posix() for file in held]
    return [file.path for file in files]


def _verify(handle: str, file: Path) -> None:
    """Hash a large file, which links to a blob that the client names by its SHA-256."""
    blob = file.resolve()
    if not SHA256.fullmatch(blob.name):  # small files go by git's hash
        return
    with blob.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != blob.name:
        blob.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        raise DigestError(
            f"{handle}: {file.name} has the SHA-256 {found}, not {blob.name}; it was deleted, "
            "try again"
        )


@contextmanager
def _failures(handle: str) -> Iterator[None]:
    """Say the client's failures in our words; the order is from narrow to wide."""
    try:
        yield
    except HFValidationError as error:
        raise PresetError(f"{handle} is malformed: {error}") from error
    except GatedRepoError as error:
        raise _denied(handle) from error
    except RepositoryNotFoundError as error:
        raise UnknownPresetError(
            f"{handle}: Hugging Face has no such repository, or it is private; for a private one "
            "set HF_TOKEN to a token that may read it"
        ) from error
    except RevisionNotFoundError as error:
        raise UnknownPresetError(f"{handle}: the repository has no such revision") from error
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _http_failure(handle, error.__cause__) from error
        raise OfflineError(
            f"{handle}: Hugging Face was not reached (HF_HUB_OFFLINE, or no network) and its cache "
            f"does not hold what is needed: {error}"
        ) from error
    except HfHubHTTPError as error:
        raise _http_failure(handle, error) from error
    except httpx2.HTTPError as error:
        raise DownloadError(f"{handle}: the download broke off, try again: {error}") from error


def _http_failure(handle: str, error: HfHubHTTPError) -> DownloadError:
    if error.response.status_code in DENIED:
        return _denied(handle)
    return DownloadError(f"{handle}: Hugging Face failed: {error}")


def _denied(handle: str) -> AccessError:
    return AccessError(
        f"{handle}: Hugging Face denies access; accept the terms on the repository's page and set "
        "HF_TOKEN to a token that may read it"
    )
