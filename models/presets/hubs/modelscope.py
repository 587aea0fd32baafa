"""Presets on ModelScope: `modelscope://ORG/NAME[@REVISION]`, through modelscope_hub.

The client resumes what broke off and compares SHA-256 sums of what it downloads. It has no offline
switch: where ModelScope is not reached, its cache decides. It keeps files by the revision's name,
so a file that is older than its last commit is hashed again; any other is taken as it is.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from modelscope_hub import (
    AuthenticationError,
    CacheNotFound,
    FileInfo,
    FileIntegrityError,
    HubApi,
    HubConfig,
    HubError,
    NetworkError,
    NotExistError,
    PermissionDeniedError,
)

from models.errors import (
    AccessError,
    DigestError,
    DownloadError,
    OfflineError,
    PresetError,
    PresetFileError,
    UnknownPresetError,
)
from models.presets.file_selection import Lora, Part, choose_files

logger = logging.getLogger(__name__)

ADDRESS = re.compile(r"(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>.+))?")
DEFAULT_REVISION = "master"
KIND = "model"
UNFINISHED_SUFFIXES = (".incomplete", ".parallel_tmp")


def fetch(
    handle: str,
    address: str,
    part: Part | Lora,
    on_progress: object,  # noqa: ARG001  # the client says nothing on the way
) -> Path:
    """Download what a part needs and give the revision's directory; see `handles.fetch`."""
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise PresetError(f"{handle} is malformed; the form is modelscope://ORG/NAME[@REVISION]")
    repository, revision = parts["repository"], parts["revision"] or DEFAULT_REVISION
    api = HubApi(HubConfig())
    try:
        with _failures(handle):
            return _download(api, repository, revision, part, handle)
    except OfflineError:
        directory = _find_cached(api, repository, revision, part)
        if directory is None:
            raise
        logger.warning("event=modelscope_unreachable handle=%s using=%s", handle, directory)
        return directory


def _download(api: HubApi, repository: str, revision: str, part: Part | Lora, handle: str) -> Path:
    listed = api.list_repo_files(repository, KIND, revision=revision)
    files = {file.path: file for file in listed if not file.is_dir}
    chosen = choose_files(files, part, handle)
    for name in chosen:
        _download_file(api, repository, revision, files[name])
    last = api.download_file(repository, KIND, chosen[-1], revision=revision, local_files_only=True)
    return last.parents[len(Path(chosen[-1]).parts) - 1]


def _download_file(api: HubApi, repository: str, revision: str, file: FileInfo) -> None:
    try:
        held = api.download_file(
            repository, KIND, file.path, revision=revision, local_files_only=True
        )
    except CacheNotFound:
        pass
    else:
        if _is_current(held, file):
            return
    api.download_file(
        repository,
        KIND,
        file.path,
        revision=revision,
        expected_sha256=file.sha256,
        file_size=file.size or None,  # 0 also means that it is not known
    )


def _is_current(held: Path, file: FileInfo) -> bool:
    """Whether a cached file, hashed when it came, cannot have been replaced since."""
    status = held.stat()
    if status.st_size != file.size or not isinstance(file.last_modified, datetime):
        return False
    changed = file.last_modified.replace(tzinfo=file.last_modified.tzinfo or UTC)
    return status.st_mtime > changed.timestamp()


def _find_cached(api: HubApi, repository: str, revision: str, part: Part | Lora) -> Path | None:
    """Give the directory of the revision in the cache, if it has all that the part needs."""
    try:
        held = api.download_repo(repository, KIND, revision=revision, local_files_only=True)
        choose_files(_cached_names(held), part, repository)
    except (CacheNotFound, PresetFileError):
        return None
    return held


def _cached_names(directory: Path) -> Sequence[str]:
    return [
        file.relative_to(directory).as_posix()
        for file in directory.rglob("*")
        if file.is_file() and file.suffix not in UNFINISHED_SUFFIXES
    ]


@contextmanager
def _failures(handle: str) -> Iterator[None]:
    """Say the client's failures in our words; the order is from narrow to wide."""
    try:
        yield
    except (AuthenticationError, PermissionDeniedError) as error:
        raise AccessError(
            f"{handle}: ModelScope denies access; ask for it on the repository's page and set "
            "MODELSCOPE_API_TOKEN"
        ) from error
    except NotExistError as error:
        raise UnknownPresetError(
            f"{handle}: ModelScope has no such repository or revision"
        ) from error
    except FileIntegrityError as error:
        raise DigestError(
            f"{handle}: a file is not what ModelScope lists; it was deleted, try again: {error}"
        ) from error
    except NetworkError as error:
        raise OfflineError(
            f"{handle}: ModelScope was not reached and the cache does not hold what is needed: "
            f"{error}"
        ) from error
    except HubError as error:
        raise DownloadError(f"{handle}: ModelScope failed: {error}") from error
