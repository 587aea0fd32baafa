"""What a case of the corpus is: a request to the byte, and the one answer that is right."""

import json
from dataclasses import dataclass, field

import httpx

Headers = tuple[tuple[str, bytes], ...]

JSON: Headers = (("content-type", b"application/json"),)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    method: str
    path: str  # as it goes out: nothing of it is normalized or escaped
    status: int
    code: str | None = None  # of the error; None: the answer is none
    headers: Headers = ()
    content: bytes = field(default=b"", repr=False)

    def send(self, http: httpx.Client) -> httpx.Response:
        url = http.base_url.copy_with(raw_path=self.path.encode())
        headers = [(name.encode(), value) for name, value in self.headers]
        return http.send(httpx.Request(self.method, url, headers=headers, content=self.content))

    def is_met_by(self, answer: httpx.Response) -> bool:
        code = answer.json()["error"]["code"] if answer.status_code >= 400 else None
        return (answer.status_code, code) == (self.status, self.code)


def get(name: str, path: str, status: int, code: str | None = None, **headers: str) -> Case:
    return Case(name, "GET", path, status, code, _encoded(headers))


def post(
    name: str, path: str, content: bytes, status: int, code: str | None = None, **headers: str
) -> Case:
    """Post these bytes as JSON, which they may not be."""
    return Case(name, "POST", path, status, code, JSON + _encoded(headers), content)


def post_json(
    name: str, path: str, body: object, status: int, code: str | None = None, **headers: str
) -> Case:
    return post(name, path, json.dumps(body).encode(), status, code, **headers)


def _encoded(headers: dict[str, str]) -> Headers:
    return tuple((name.replace("_", "-"), value.encode()) for name, value in headers.items())
