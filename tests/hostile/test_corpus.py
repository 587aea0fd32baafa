"""Every hostile request has its one answer, and none above 499; the API process keeps its size.

They go to the real thing: what an image is, a real worker decides.
"""

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from benchmarks.process_tree import tree_of
from tests.hostile import (
    field_types,
    forms,
    headers,
    images,
    json_bodies,
    paths,
    texts,
    tokens,
    urls,
)
from tests.hostile.cases import Case
from tests.running_service import Service, read

CASES: Mapping[str, Sequence[Case]] = {
    "images": images.CASES,
    "json_bodies": json_bodies.CASES,
    "field_types": field_types.CASES,
    "forms": forms.CASES,
    "texts": texts.CASES,
    "headers": headers.CASES,
    "paths": paths.CASES,
    "urls": urls.CASES,
    "tokens": tokens.CASES,
}
_MIB = 1024 * 1024


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def names(http: httpx.Client) -> Mapping[str, str]:
    """What `tokens.py` alters: a job, its image, and the signature of that."""
    body = {"prompt": "a red circle", "seed": 1, "response_format": "url", "steps": 1}
    answer = http.post("/v1/images/generations", json=body).raise_for_status()
    url = urllib.parse.urlsplit(answer.json()["data"][0]["url"])
    query = dict(urllib.parse.parse_qsl(url.query))
    signature = query["sig"]
    return {
        "{job}": answer.json()["id"],
        "{image}": url.path,
        "{exp}": query["exp"],
        "{sig}": signature,
        "{SIG}": signature.swapcase(),
    }


def filled(case: Case, names: Mapping[str, str]) -> Case:
    path = case.path
    for name, value in names.items():
        path = path.replace(name, value)
    return replace(case, path=path)


def mistakes(http: httpx.Client, cases: Sequence[Case]) -> list[str]:
    """Send them, several at once; what is not answered as it should be."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda case: case.send(http), cases))
    pairs = zip(cases, answers, strict=True)
    return [f"{case.name}: {_told(answer)}" for case, answer in pairs if not case.is_met_by(answer)]


def _told(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text[:300]}"


@pytest.mark.parametrize("kind", CASES)
def test_every_hostile_request_has_its_one_answer(
    http: httpx.Client, names: Mapping[str, str], kind: str
) -> None:
    assert mistakes(http, [filled(case, names) for case in CASES[kind]]) == []


def test_the_corpus_leaves_the_api_process_as_large_as_it_was(
    http: httpx.Client, service: Service, names: Mapping[str, str]
) -> None:
    """The tests before are its first pass, in which pools and caches fill up."""
    before = resident_bytes(service)
    for cases in CASES.values():
        mistakes(http, [filled(case, names) for case in cases])
    assert resident_bytes(service) - before <= 10 * _MIB


def resident_bytes(service: Service) -> int:
    api = next(pid for pid in tree_of(service.process.pid) if read(pid, "comm").startswith("api"))
    return int(read(api, "statm").split()[1]) * 4096


def test_the_corpus_is_large_and_each_case_has_a_name() -> None:
    for kind, cases in CASES.items():
        assert len({case.name for case in cases}) == len(cases), kind
    assert sum(map(len, CASES.values())) >= 400


def test_no_case_expects_a_fault_of_the_service() -> None:
    assert all(case.status < 500 for cases in CASES.values() for case in cases)
