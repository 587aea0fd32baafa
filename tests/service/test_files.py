"""`GET /v1/images/{name}`: what a URL leads to, for whom, and until when."""

import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from service.dependencies import Parts
from service.main import create_app
from service.settings import ServiceSettings
from tests.service.conftest import PNG, error_of, serve

ROUTE = "/v1/images/generations"
SIZE = len(PNG)
LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT"


@dataclass(frozen=True, slots=True)
class Given:
    """An image as an answer gave it."""

    url: str
    expires_at: int

    @property
    def name(self) -> str:
        return Path(urlsplit(self.url).path).name


def paint(http: httpx.Client, **fields: object) -> Given:
    body = http.post(ROUTE, json={"prompt": "x", "response_format": "url", **fields}).json()
    [item] = body["data"]
    return Given(item["url"], item["expires_at"])


@pytest.fixture
def given(http: httpx.Client, worker: object) -> Given:  # noqa: ARG001
    return paint(http)


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> None:
    monkeypatch.setattr(Parts, "now", staticmethod(lambda: time.time() + ahead_s))


def max_age_of(response: httpx.Response) -> int:
    private, max_age, immutable = response.headers["cache-control"].split(", ")
    assert (private, immutable) == ("private", "immutable")
    return int(max_age.removeprefix("max-age="))


def test_a_url_leads_to_the_image(http: httpx.Client, given: Given) -> None:
    response = http.get(given.url)
    assert (response.status_code, response.content) == (200, PNG)
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-disposition"] == f'inline; filename="{given.name}"'
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["etag"] == f'"{sha256(PNG).hexdigest()}"'


def test_a_url_is_good_and_cached_for_as_long_as_the_job_is_kept(
    http: httpx.Client, given: Given, settings: ServiceSettings
) -> None:
    [exp] = parse_qs(urlsplit(given.url).query)["exp"]
    assert int(exp) == given.expires_at
    left_s = given.expires_at - time.time()
    assert settings.result_ttl_s - 60 < left_s <= settings.result_ttl_s
    assert max_age_of(http.get(given.url)) == pytest.approx(left_s, abs=60)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("output_format", "end"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")]
)
def test_each_format_has_its_name_and_its_content_type(
    http: httpx.Client, output_format: str, end: str
) -> None:
    given = paint(http, output_format=output_format)
    assert given.name.endswith(end)
    assert http.get(given.url).headers["content-type"] == f"image/{output_format}"


def test_a_job_gives_the_same_url_as_the_answer(http: httpx.Client, given: Given) -> None:
    job_id = given.name.partition("-")[0]
    [item] = http.get(f"/v1/jobs/{job_id}").json()["result"]["data"]
    assert (item["url"], item["expires_at"]) == (given.url, given.expires_at)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("sig=", "sig=0"),
        ("sig=", "other="),
        ("sig=", "sig=&other="),
        ("sig=", "sig=%C3%A4"),
        ("sig=", "sig=%00"),
        ("exp=", "exp=1"),
        ("exp=", "exp=-"),
        ("exp=", "other="),
        ("exp=", "exp=%20"),
        ("exp=", "exp=%EF%BC%91"),
        ("-1-0.", "-1-1."),
        ("-1-0.", "-2-0."),
        (".png", ".webp"),
        (".png", ".svg"),
        (".png", ".start"),
        ("/job_", "/..%5Cjob_"),
        ("?", "?x="),
        ("?", "#"),
    ],
)
def test_a_url_that_was_changed_leads_nowhere(
    http: httpx.Client, given: Given, part: str, other: str
) -> None:
    assert part in given.url
    error = error_of(http.get(given.url.replace(part, other)), 403)
    assert (error["code"], error["type"]) == ("invalid_signature", "permission_error")
    assert "is not signed, or was changed" in str(error["message"])


@pytest.mark.parametrize(
    "name", ["job_0-1-0.png", "nothing.png", "job_0.start", "a b.c", "%00.png"]
)
def test_who_has_no_signature_is_not_told_whether_there_is_an_image(
    http: httpx.Client, name: str
) -> None:
    assert error_of(http.get(f"/v1/images/{name}"), 403)["code"] == "invalid_signature"


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd.png", "nothing", ""])
def test_what_is_no_name_of_a_file_is_no_route(http: httpx.Client, name: str) -> None:
    error_of(http.get(f"/v1/images/{name}"), 404)


def test_an_image_that_is_gone_is_not_found_by_its_url(
    http: httpx.Client, given: Given, data_dir: Path
) -> None:
    (data_dir / "images" / given.name).unlink()
    error = error_of(http.get(given.url), 404)
    assert error["code"] == "file_not_found"
    assert given.name in str(error["message"])


def test_a_url_is_gone_once_its_time_is_over(
    http: httpx.Client, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Parts, "now", staticmethod(lambda: given.expires_at - 0.5))
    assert max_age_of(http.get(given.url)) == 0
    monkeypatch.setattr(Parts, "now", staticmethod(lambda: float(given.expires_at)))
    error = error_of(http.get(given.url), 410)
    assert (error["code"], error["type"]) == ("file_expired", "invalid_request_error")


@pytest.mark.parametrize("ahead_s", [-7200.0, 7200.0])
def test_a_skewed_clock_makes_a_url_good_for_longer_or_shorter_and_no_signature_wrong(
    http: httpx.Client, given: Given, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    right = max_age_of(http.get(given.url))
    set_clock(monkeypatch, ahead_s)
    response = http.get(given.url)
    assert response.status_code == 200
    assert max_age_of(response) == pytest.approx(right - ahead_s, abs=60)
    set_clock(monkeypatch, ahead_s=10 * 86400)
    error_of(http.get(given.url), 410)


def test_who_has_the_image_is_not_sent_it_again(http: httpx.Client, given: Given) -> None:
    first = http.get(given.url)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for headers in (
        {"if-none-match": etag},
        {"if-none-match": f'"other", W/{etag}'},
        {"if-none-match": "*"},
        {"if-modified-since": modified},
        {"if-none-match": etag, "if-modified-since": LONG_AGO},
        {"if-none-match": etag, "range": "bytes=0-9"},
    ):
        response = http.get(given.url, headers=headers)
        assert (response.status_code, response.content) == (304, b""), headers
        assert (response.headers["etag"], response.headers["last-modified"]) == (etag, modified)
        assert max_age_of(response) > 0
        assert "content-type" not in response.headers


def test_who_has_another_one_is_sent_it(http: httpx.Client, given: Given) -> None:
    modified = http.get(given.url).headers["last-modified"]
    for headers in (
        {"if-none-match": '"other"'},
        {"if-none-match": ""},
        {"if-none-match": '"other"', "if-modified-since": modified},
        {"if-modified-since": LONG_AGO},
        {"if-modified-since": "yesterday"},
        {"if-modified-since": "Sun, 06 Nov 99999999999999999999 08:49:37 GMT"},
    ):
        response = http.get(given.url, headers=headers)
        assert (response.status_code, response.content) == (200, PNG), headers


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=5-5", 5, 6),
        (f"bytes=60-{SIZE + 10}", 60, SIZE),
        ("bytes=60-", 60, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{10 * SIZE}", 0, SIZE),
        (f"bytes=0-{90 * '9'}", 0, SIZE),
        ("Bytes= 2-3", 2, 4),
    ],
)
def test_a_range_is_a_part_of_the_image(
    http: httpx.Client, given: Given, asked: str, start: int, stop: int
) -> None:
    response = http.get(given.url, headers={"range": asked})
    assert (response.status_code, response.content) == (206, PNG[start:stop])
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert response.headers["content-length"] == str(stop - start)
    assert response.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=0-1,4-5", "bytes=1",
     "items=0-5", "bytes=--5", "bytes=0x1-2", f"bytes=0-{5000 * '9'}", "bytes=0-1;x"],
)  # fmt: skip
def test_a_malformed_range_and_several_ones_are_answered_with_the_whole_image(
    http: httpx.Client, given: Given, asked: str
) -> None:
    response = http.get(given.url, headers={"range": asked})
    assert (response.status_code, response.content) == (200, PNG)
    assert "content-range" not in response.headers


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
def test_a_range_behind_the_end_is_not_satisfiable(
    http: httpx.Client, given: Given, asked: str
) -> None:
    response = http.get(given.url, headers={"range": asked})
    error = error_of(response, 416)
    assert (error["code"], error["param"]) == ("range_not_satisfiable", "Range")
    assert f"the file has {SIZE} bytes" in str(error["message"])
    assert response.headers["content-range"] == f"bytes */{SIZE}"


def test_a_part_is_sent_only_of_the_image_that_the_client_has_begun(
    http: httpx.Client, given: Given
) -> None:
    first = http.get(given.url).headers
    for validator, status in (
        (first["etag"], 206),
        (first["last-modified"], 206),
        (f"W/{first['etag']}", 200),
        ('"other"', 200),
        (LONG_AGO, 200),
    ):
        response = http.get(given.url, headers={"range": "bytes=9-", "if-range": validator})
        assert (response.status_code, response.content[-9:]) == (status, PNG[-9:]), validator
        assert len(response.content) == SIZE - (9 if status == 206 else 0)


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-9"}])
def test_head_says_what_get_would_send(
    http: httpx.Client, given: Given, headers: dict[str, str]
) -> None:
    head, get = http.head(given.url, headers=headers), http.get(given.url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "content-disposition", "etag", "last-modified"):
        assert head.headers[name] == get.headers[name]
    assert "content-range" not in head.headers
    assert http.head(given.url.partition("?")[0]).status_code == 403


@pytest.mark.usefixtures("worker")
def test_each_process_of_the_api_knows_the_urls_of_the_others(
    settings: ServiceSettings,
) -> None:
    with (
        serve(create_app(settings)) as one,
        serve(create_app(settings)) as other,
        httpx.Client(base_url=one) as http,
    ):
        url = paint(http).url
        assert httpx.get(url).status_code == 200
        assert httpx.get(url.replace(one, other)).status_code == 200


@pytest.mark.usefixtures("worker")
def test_urls_are_signed_with_the_secret_that_is_set(
    settings: ServiceSettings, redis: Redis
) -> None:
    apps = [
        create_app(settings.model_copy(update={"url_secret": SecretStr(secret)}))
        for secret in ("0123456789abcdef", "0123456789abcdef", "another-secret-!")
    ]
    with (
        serve(apps[0]) as one,
        serve(apps[1]) as other,
        serve(apps[2]) as stranger,
        httpx.Client(base_url=one) as http,
    ):
        url = paint(http).url
        assert httpx.get(url.replace(one, other)).status_code == 200
        error_of(httpx.get(url.replace(one, stranger)), 403)
    assert redis.get("triptych:url_secret") is None


@pytest.mark.usefixtures("worker")
def test_urls_start_with_the_configured_base(settings: ServiceSettings) -> None:
    app = create_app(settings.model_copy(update={"public_base_url": "https://shapes.example/t/"}))
    with serve(app) as url, httpx.Client(base_url=url) as http:
        assert paint(http).url.startswith("https://shapes.example/t/v1/images/job_")
