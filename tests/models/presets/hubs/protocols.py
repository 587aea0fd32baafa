"""What each hub answers, in the form that its official client reads."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from http import HTTPStatus

from tests.models.presets.hubs.loopback import Repository, Request, Response, send_file

LARGE_FILE_SUFFIXES = (".safetensors", ".h5")  # in LFS, with a SHA-256
KAGGLE_PAGE = 2  # files a page, so that there are several
KAGGLE_FILES = "/kaggle-storage/"


def commit_of(revision: str) -> str:
    """Give the commit that a branch or tag stands for; a commit stands for itself."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    return hashlib.sha1(revision.encode()).hexdigest()


def hugging_face(request: Request, held: dict[str, Repository], _: str) -> Response | None:
    about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", request.path)
    file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path)
    found = about or file
    if found is None:
        return None
    repository = held.get(f"hf:{found[1]}")
    if repository is None:
        return Response(HTTPStatus.NOT_FOUND, {"X-Error-Code": "RepoNotFound"})
    if repository.failure is not None:
        return repository.failure
    revision = (found[2] if file else found[3]) or "main"
    files = _at_commit(repository, commit_of(revision))
    if files is None:
        return Response(HTTPStatus.NOT_FOUND, {"X-Error-Code": "RevisionNotFound"})
    if file:
        return _hugging_face_file(request, repository, files, file[3], commit_of(revision))
    if found[2] == "tree":
        return _json([_hugging_face_entry(name, body) for name, body in files.items()])
    return _json({"id": found[1], "sha": commit_of(revision), "siblings": []})


def _at_commit(repository: Repository, commit: str) -> dict[str, bytes] | None:
    everything = {"main": repository.files} | repository.revisions
    return {commit_of(name): files for name, files in everything.items()}.get(commit)


def _hugging_face_entry(name: str, body: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(body), "oid": _git(body)}
    if name.endswith(LARGE_FILE_SUFFIXES):
        digest = hashlib.sha256(body).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(body), "pointerSize": 134}
    return entry


def _hugging_face_file(
    request: Request, repository: Repository, files: dict[str, bytes], name: str, commit: str
) -> Response:
    if repository.needs_token and not request.has_token:
        return Response(HTTPStatus.FORBIDDEN, {"X-Error-Code": "GatedRepo"})
    if name not in files:
        return Response(HTTPStatus.NOT_FOUND, {"X-Error-Code": "EntryNotFound"})
    body = files[name]
    headers = {"X-Repo-Commit": commit, "ETag": f'"{_git(body)}"'}
    if name.endswith(LARGE_FILE_SUFFIXES):
        headers["X-Linked-Etag"] = f'"{hashlib.sha256(body).hexdigest()}"'
        headers["X-Linked-Size"] = str(len(body))
    return send_file(request, repository, name, body, headers)


def _git(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def kaggle(request: Request, held: dict[str, Repository], url: str) -> Response | None:
    if request.path.startswith(KAGGLE_FILES):
        name, _, file = request.path.removeprefix(KAGGLE_FILES).partition("//")
        return _kaggle_file(request, held[f"kaggle:{name}"], file)
    call = re.fullmatch(r"/api/v1/models\.ModelApiService/(\w+)", request.path)
    if call is None:
        return None
    asked = json.loads(request.body)
    framework = asked["framework"].removeprefix("MODEL_FRAMEWORK_").lower()
    name = f"{asked['ownerSlug']}/{asked['modelSlug']}/{framework}/{asked['instanceSlug']}"
    repository = held.get(f"kaggle:{name}")
    if repository is None or asked.get("versionNumber", 2) != 2:
        return _json({"code": 404, "message": "Not found"}, HTTPStatus.NOT_FOUND)
    if repository.failure is not None:
        return repository.failure
    if repository.needs_token and not request.has_token:
        return _json({"code": 403, "message": "Permission denied"}, HTTPStatus.FORBIDDEN)
    match call[1]:
        case "GetModelInstance":
            return _json({"id": 1, "slug": asked["instanceSlug"], "versionNumber": 2})
        case "ListModelInstanceVersionFiles":
            return _kaggle_page(repository, int(asked.get("pageToken") or 0))
        case _:
            location = f"{url}{KAGGLE_FILES}{name}//{asked['path']}"
            return Response(HTTPStatus.FOUND, {"Location": location})


def _kaggle_page(repository: Repository, start: int) -> Response:
    stop = start + KAGGLE_PAGE
    names = list(repository.files)
    files = [{"name": name, "size": len(repository.files[name])} for name in names[start:stop]]
    return _json({"files": files, "nextPageToken": str(stop) if stop < len(names) else ""})


def _kaggle_file(request: Request, repository: Repository, name: str) -> Response:
    body = repository.files[name]
    digest = base64.b64encode(hashlib.md5(body).digest()).decode()
    return send_file(request, repository, name, body, {"x-goog-hash": f"md5={digest}"})


def modelscope(request: Request, held: dict[str, Repository], _: str) -> Response | None:
    found = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?", request.path)
    if found is None:
        return None
    repository = held.get(f"modelscope:{found[1]}")
    files = repository.at(request.query["Revision"], "master") if repository else None
    if repository is None or files is None:
        return _json({"Code": 10010205001, "Message": "not found"}, HTTPStatus.NOT_FOUND)
    if repository.failure is not None:
        return repository.failure
    if repository.needs_token and not request.has_token:
        return _json({"Code": 10010205002, "Message": "no access"}, HTTPStatus.FORBIDDEN)
    if found[2]:
        entries = [
            _modelscope_entry(name, body, repository.committed_s) for name, body in files.items()
        ]
        return _json({"Code": 200, "Data": {"Files": entries}})
    name = request.query["FilePath"]
    return send_file(request, repository, name, files[name], {})


def _modelscope_entry(name: str, body: bytes, committed_s: int) -> dict[str, object]:
    return {
        "Path": name,
        "Size": len(body),
        "Sha256": hashlib.sha256(body).hexdigest(),
        "Type": "blob",
        "CommittedDate": committed_s,
    }


def _json(value: Mapping[str, object] | list[dict[str, object]], status: int = 200) -> Response:
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())
