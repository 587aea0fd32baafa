"""Presets on Kaggle: `kaggle://ORG/MODEL/FRAMEWORK/VARIANT[/VERSION]`, through kagglehub.

The client resumes what broke off and compares MD5 sums by itself. It has no offline switch: where
Kaggle is not reached, or a handle with a version is complete, the cache alone decides.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

import kagglehub
import requests
from filelock import FileLock
from kagglehub.cache import get_cached_path
from kagglehub.clients import build_kaggle_client
from kagglehub.exceptions import DataCorruptionError
from kagglehub.handle import ModelHandle
from kagglesdk.kaggle_client import KaggleClient
from kagglesdk.models.types.model_api_service import (
    ApiGetModelInstanceRequest,
    ApiListModelInstanceVersionFilesRequest,
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

DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
MARK = ".complete"  # the suffix, and the folder, by which the client knows what it has


@dataclass(frozen=True, slots=True)
class _Model:
    organization: str
    name: str
    framework: str
    variant: str
    version: int | None = None  # None: the newest

    def __str__(self) -> str:
        return str(self.client_handle)

    @property
    def client_handle(self) -> ModelHandle:
        return ModelHandle(self.organization, self.name, self.framework, self.variant, self.version)

    @property
    def directory(self) -> Path:
        """Where the client keeps this version."""
        return Path(get_cached_path(self.client_handle))


def fetch(
    handle: str,
    address: str,
    part: Part | Lora,
    on_progress: object,  # noqa: ARG001  # the client says nothing on the way
) -> Path:
    """Download what a part needs and give the version's directory; see `handles.fetch`."""
    model = _parse(handle, address)
    if model.version is not None and part is not Part.PIPELINE:  # a pipeline's files vary
        cached = _find_cached(model, part, handle)
        if cached is not None:
            return cached
    try:
        with _failures(handle):
            return _download(model, part, handle)
    except OfflineError:
        cached = _find_cached(model, part, handle)
        if cached is None:
            raise
        logger.warning("event=kaggle_unreachable handle=%s using=%s", handle, cached)
        return cached


def _parse(handle: str, address: str) -> _Model:
    names = address.split("/")
    version = names.pop() if len(names) == 5 else None
    is_wrong = version is not None and not (version.isdecimal() and int(version) > 0)
    if len(names) != 4 or not all(names) or ".." in names or is_wrong:
        raise PresetError(
            f"{handle} is malformed; the form is kaggle://ORG/MODEL/FRAMEWORK/VARIANT[/VERSION], "
            "for example kaggle://keras/vit/keras/vit_base_patch16_224_imagenet/2"
        )
    organization, name, framework, variant = names
    number = None if version is None else int(version)
    model = _Model(organization, name, framework, variant, number)
    try:
        model.client_handle.framework_enum()
    except ValueError as error:
        raise PresetError(f"{handle} is malformed: {error}; KerasHub's is keras") from error
    return model


def _download(model: _Model, part: Part | Lora, handle: str) -> Path:
    with build_kaggle_client() as client:
        if model.version is None:
            model = replace(model, version=_ask_version(client, model))
        names = _ask_names(client, model)
    chosen = choose_files(names, part, handle)
    if set(chosen) <= set(_cached_names(model)):
        return model.directory
    lock = model.directory.with_name(f".{model.version}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # the client has none: two processes would write one file
        for name in chosen:
            kagglehub.model_download(str(model), name)
    return model.directory


def _address(
    request: ApiGetModelInstanceRequest | ApiListModelInstanceVersionFilesRequest, model: _Model
) -> None:
    request.owner_slug = model.organization
    request.model_slug = model.name
    request.framework = model.client_handle.framework_enum()
    request.instance_slug = model.variant


def _ask_version(client: KaggleClient, model: _Model) -> int:
    request = ApiGetModelInstanceRequest()
    _address(request, model)
    return int(client.models.model_api_client.get_model_instance(request).version_number)


def _ask_names(client: KaggleClient, model: _Model) -> list[str]:
    request = ApiListModelInstanceVersionFilesRequest()
    _address(request, model)
    request.version_number = model.version
    names: list[str] = []
    while True:
        page = client.models.model_api_client.list_model_instance_version_files(request)
        names += [file.name for file in page.files]
        if not page.next_page_token:
            return names
        request.page_token = page.next_page_token


def _find_cached(model: _Model, part: Part | Lora, handle: str) -> Path | None:
    """Give the directory of this version, or of the newest in the cache, if it has all."""
    versions = [model.version] if model.version is not None else _cached_versions(model)
    for version in versions:
        candidate = replace(model, version=version)
        try:
            choose_files(_cached_names(candidate), part, handle)
        except PresetFileError:
            continue
        return candidate.directory
    return None


def _cached_versions(model: _Model) -> list[int]:
    siblings = replace(model, version=0).directory.parent.glob("*")
    return sorted((int(each.name) for each in siblings if each.name.isdecimal()), reverse=True)


def _cached_names(model: _Model) -> list[str]:
    """Name the files that the client marked as complete, one by one or the version as a whole."""
    directory = model.directory
    marks = directory.parent / MARK / directory.name
    is_whole = directory.with_name(directory.name + MARK).exists()
    held = [file.relative_to(directory) for file in directory.rglob("*") if file.is_file()]
    return [name.as_posix() for name in held if is_whole or (marks / f"{name}{MARK}").is_file()]


@contextmanager
def _failures(handle: str) -> Iterator[None]:
    """Say the client's failures in our words."""
    try:
        yield
    except DataCorruptionError as error:
        raise DigestError(
            f"{handle}: a file's MD5 sum is not Kaggle's; it was deleted, try again"
        ) from error
    except requests.HTTPError as error:
        raise _http_failure(handle, error) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise OfflineError(
            f"{handle}: Kaggle was not reached and the cache does not hold what is needed: {error}"
        ) from error
    except requests.RequestException as error:
        raise DownloadError(
            f"{handle}: the download broke off; try again, it continues there: {error}"
        ) from error


def _http_failure(handle: str, error: requests.HTTPError) -> PresetError:
    status = error.response.status_code if error.response is not None else None
    if status in DENIED:
        return AccessError(
            f"{handle}: Kaggle denies access; accept the terms on the model's page and set "
            "KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY"
        )
    if status == HTTPStatus.NOT_FOUND:
        return UnknownPresetError(f"{handle}: Kaggle has no such model, variant or version")
    return DownloadError(f"{handle}: Kaggle failed: {error}")
