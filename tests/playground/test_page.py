"""The playground as a page: what is sent, and how it holds in any browser."""

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page

from benchmarks.playground import visit
from service.main import create_app
from service.playground_files import FOLDER
from service.settings import ServiceSettings
from tests.playground.browser import Complaints, watched_page
from tests.running_service import poll_until
from tests.service.conftest import serve

MAX_BYTES = 100_000  # compressed, all of it


@pytest.fixture
def http(service_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service_url, timeout=60) as client:
        yield client


def script_paths(http: httpx.Client) -> list[str]:
    """Of all scripts, under the digest that the page names."""
    found = re.search(r"playground/[0-9a-f]{16}/", http.get("/").text)
    assert found is not None
    names = [path.name for path in FOLDER.glob("*.js")]
    assert len(names) > 10
    return [f"/{found[0]}{name}" for name in names]


def test_the_page_is_checked_for_each_time_and_its_scripts_are_kept(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.headers["cache-control"] == "no-cache"
    again = http.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in script_paths(http):
        script = http.get(path).raise_for_status()
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert script.headers["x-content-type-options"] == "nosniff"


def test_files_of_another_version_are_not_there(http: httpx.Client) -> None:
    answer = http.get(f"/playground/{'0' * 16}/app.js")
    assert answer.status_code == 404
    assert "cache-control" not in answer.headers


@pytest.mark.parametrize("path", ["%2e%2e%2fmain.py", "..%5cmain.py", "index.html", "app.js%00"])
def test_nothing_but_the_files_is_there(http: httpx.Client, path: str) -> None:
    folder = script_paths(http)[0].rpartition("/")[0]
    assert http.get(f"{folder}/{path}").status_code == 404


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [("gzip, deflate, br", True), ("GZIP;q=0.5", True), ("gzip;q=0", False), ("br", False)],
)
def test_compression_is_as_the_client_accepts_it(
    http: httpx.Client, accepted: str, is_compressed: bool
) -> None:
    path = next(path for path in script_paths(http) if path.endswith("/app.js"))
    answer = http.get(path, headers={"accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == ("gzip" if is_compressed else None)
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.content == (FOLDER / "app.js").read_bytes()


def test_all_of_it_is_small_and_is_sent_once(new_page: Page, service_url: str) -> None:
    first, later = visit(new_page, service_url), visit(new_page, service_url)
    assert first.num_files > 10
    assert 0 < first.num_bytes < MAX_BYTES
    assert later.num_files == 1
    assert min(first.painted_ms, later.painted_ms) > 0


def test_the_page_has_a_strict_policy(http: httpx.Client) -> None:
    headers = http.get("/").headers
    policy = headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    styles = re.search(r"<style>(.*?)</style>", http.get("/").text, re.DOTALL)
    assert styles is not None
    style_hash = b64encode(sha256(styles[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{style_hash}'" in policy
    assert "unsafe" not in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "misdeed",
    [
        "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
        "document.body.setAttribute('style', 'color: red')",
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))",
        "setTimeout(() => { throw new Error('oh') })",
        "fetch('v1/models/nobody')",
    ],
)
def test_a_misdeed_of_the_page_is_found(page: Page, complaints: Complaints, misdeed: str) -> None:
    page.goto("/")
    before = len(complaints.unexpected)
    page.evaluate(misdeed)
    # the browser's words come while it is asked something
    poll_until(lambda: page.evaluate("true") and len(complaints.unexpected) > before)
    complaints.expect("")  # all of them


def test_a_misdeed_at_the_very_end_is_found(browser: Browser, service_url: str) -> None:
    complaints = Complaints()
    with watched_page(browser, complaints, service_url) as page:
        page.goto("/")
        page.evaluate("document.body.setAttribute('style', 'color: red')")
    assert len(complaints.unexpected) == 1


def test_no_styles_are_forgotten(http: httpx.Client) -> None:
    page = http.get("/").text
    styles = [path.read_text(encoding="utf-8") for path in FOLDER.glob("*.css")]
    assert styles
    assert all(style in page for style in styles)


@pytest.fixture
def app() -> FastAPI:
    """Without the page; its Redis is not there, nor needed."""
    return create_app(ServiceSettings(playground=False, redis_url="redis://127.0.0.1:1/0"))


def test_switched_off_it_is_not_there(app: FastAPI) -> None:
    with serve(app) as url:
        assert httpx.get(f"{url}/").status_code == 405  # POST has it, as before
        assert httpx.get(f"{url}/playground/{'0' * 16}/app.js").json()["error"]["code"] == (
            "not_found"
        )
