"""What the stock `openai` clients make of each error, and how often they try."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import openai
import pytest

from tests.clients import node
from tests.clients.refusing import REFUSALS, Refusal, Refusing, refusing

each_refusal = pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client raised."""

    error: str
    status: int
    code: str | None
    request_id: str | None


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refusing]:
    with refusing(tmp_path_factory.mktemp("refusing")) as apps:
        yield apps


@pytest.fixture(scope="module")
def in_python(apps: Refusing) -> Mapping[str, Outcome]:
    """How each call ended, by its name; all at once, as some wait for `Retry-After`."""
    with ThreadPoolExecutor(len(REFUSALS)) as pool:
        outcomes = pool.map(lambda refusal: _call(refusal, apps.url_for(refusal)), REFUSALS)
        return {refusal.name: outcome for refusal, outcome in zip(REFUSALS, outcomes, strict=True)}


def _call(refusal: Refusal, url: str) -> Outcome:
    # what OpenAI does not have goes beside the client's arguments
    ours = {name: value for name, value in refusal.body.items() if name == "image"}
    theirs = {name: value for name, value in refusal.body.items() if name not in ours}
    headers = {**refusal.headers, "x-request-id": refusal.request_id("python")}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=1) as client:
        method = getattr(getattr(client, refusal.resource), refusal.method)
        with pytest.raises(openai.APIStatusError) as caught:
            method(**theirs, extra_body=ours, extra_headers=headers)
    error = caught.value
    return Outcome(type(error).__name__, error.status_code, error.code, error.request_id)


@pytest.fixture(scope="module")
def in_node(apps: Refusing) -> Mapping[str, Outcome]:
    """How each call ended, by its name."""
    calls = [
        {
            **asdict(refusal),
            "url": apps.url_for(refusal),
            "method": refusal.method,
            "headers": {**refusal.headers, "x-request-id": refusal.request_id("node")},
        }
        for refusal in REFUSALS
    ]
    printed = json.loads(node.run("refusals.mjs", json.dumps(calls)))
    return {name: Outcome(**outcome) for name, outcome in printed.items()}


@each_refusal
def test_python(apps: Refusing, in_python: Mapping[str, Outcome], refusal: Refusal) -> None:
    request_id = refusal.request_id("python")
    expected = Outcome(refusal.error, refusal.status, refusal.code, request_id)
    assert in_python[refusal.name] == expected
    assert apps.attempts[request_id] == refusal.num_attempts


@each_refusal
def test_node(apps: Refusing, in_node: Mapping[str, Outcome], refusal: Refusal) -> None:
    request_id = refusal.request_id("node")
    error = {"APIStatusError": "APIError"}.get(refusal.error, refusal.error)  # Node's word
    expected = Outcome(error, refusal.status, refusal.code, request_id)
    assert in_node[refusal.name] == expected
    assert apps.attempts[request_id] == refusal.num_attempts
