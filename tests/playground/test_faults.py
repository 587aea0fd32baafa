"""What people see of the playground when something breaks: keys, queues, Redis, workers.

On a service of its own, whose queue is short and whose processes are killed.
"""

import os
import re
import signal
from collections.abc import Iterator
from random import randrange

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from benchmarks.process_tree import tree_of
from tests.playground.browser import Complaints, watched_page
from tests.playground.gateway import KEY, OTHER_KEY, gateway
from tests.running_service import Service, poll_until, read, start_service, stop_service

MAX_DEPTH = 2
MANY_STEPS = 60  # some seconds, of which a part is enough to break something
PROMPT = "a red circle"
NOT_READY = "status of 503"  # the strip has asked
BROKEN_OFF = "net::ERR_"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data_dir = tmp_path_factory.mktemp("playground")
    running = start_service(data_dir, TRIPTYCH_MAX_QUEUE_DEPTH=str(MAX_DEPTH))
    yield running
    stop_service(running)


@pytest.fixture
def gated(browser: Browser, service: Service, complaints: Complaints) -> Iterator[Page]:
    """The playground behind a gateway that has a path prefix and demands a key."""
    with (
        gateway(service.url) as running,
        watched_page(browser, complaints, running.url) as page,
    ):
        page.goto(running.url)
        yield page


def paint(page: Page, num_steps: int = 4) -> None:
    """Ask for a picture that is no other's."""
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_role("spinbutton", name="Steps").fill(str(num_steps))
    page.get_by_role("button", name="Paint", exact=True).click()


def await_step(page: Page) -> None:
    """Wait until the job has begun to be painted."""
    expect(page.locator("#paint-queue")).to_contain_text(re.compile(r"Step [1-9]"))


def painted(page: Page) -> None:
    expect(page.get_by_role("link", name="Download")).to_be_visible()
    expect(page.locator("#paint-queue-area")).to_be_hidden()


def give(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_a_wrong_key_is_said_and_the_right_one_paints_behind_a_prefix(
    gated: Page, complaints: Complaints
) -> None:
    complaints.expect("status of 401")
    dialog = gated.get_by_role("dialog")
    give(gated, "sk-wrong")
    expect(dialog).to_contain_text("That key was refused")
    give(gated, KEY)
    expect(dialog).to_have_count(0)
    paint(gated)
    painted(gated)
    assert gated.evaluate("Object.values(sessionStorage)") == [KEY]
    assert KEY not in gated.evaluate("JSON.stringify(localStorage) + document.cookie")


def test_each_key_has_its_own_gallery(gated: Page, complaints: Complaints) -> None:
    complaints.expect("status of 401")
    gallery = gated.get_by_role("list").and_(gated.locator("#paint-gallery"))
    give(gated, KEY)
    paint(gated)
    painted(gated)
    expect(gallery.get_by_role("listitem")).to_have_count(1)
    for key, num_jobs in ((OTHER_KEY, 0), (KEY, 1)):
        gated.get_by_role("button", name="Forget key").click()
        give(gated, key)
        expect(gated.locator("#status .state")).to_have_text("Ready")
        expect(gallery.get_by_role("listitem")).to_have_count(num_jobs)


def test_who_gives_no_key_is_told_so_and_asked_again_when_they_wish(
    gated: Page, complaints: Complaints
) -> None:
    complaints.expect("status of 401")
    gated.get_by_role("button", name="Not now").click()
    expect(gated.locator("#status .state")).to_contain_text("Incorrect API key")
    gated.get_by_role("tab", name="Read").click()
    gated.get_by_role("button", name="Compare").click()
    expect(gated.get_by_role("dialog")).to_have_count(0)
    gated.get_by_role("button", name="Enter a key").click()
    give(gated, KEY)
    expect(gated.locator("#status .state")).to_have_text("Ready")


def test_a_full_queue_is_said_and_the_form_kept(
    page: Page, service: Service, complaints: Complaints
) -> None:
    complaints.expect("status of 429")
    page.goto("/")
    (worker,) = service.workers("images")
    jobs: list[str] = []

    def ask_when_full(route: Route) -> None:
        os.kill(worker, signal.SIGSTOP)  # or it would take what waits
        try:
            jobs.extend(fill_queue(client))
            answer = route.fetch()
        finally:
            os.kill(worker, signal.SIGCONT)
        route.fulfill(response=answer)

    with httpx.Client(base_url=service.url, timeout=60) as client:
        page.route("**/v1/jobs", ask_when_full, times=1)
        paint(page)
        expect(page.locator("#paint-notice")).to_contain_text("queue")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
        for job in jobs:
            client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    paint(page)
    painted(page)


def fill_queue(client: httpx.Client) -> Iterator[str]:
    """Submit jobs until one is refused; yield their ids."""
    body = {"prompt": PROMPT, "num_inference_steps": MANY_STEPS}
    while (answer := submit(client, body, seed=randrange(2**32))).is_success:
        yield answer.json()["id"]


def submit(client: httpx.Client, body: dict[str, object], seed: int) -> httpx.Response:
    headers = {"Prefer": "respond-async"}
    return client.post("/v1/images/generations", json={**body, "seed": seed}, headers=headers)


def test_a_killed_workers_picture_comes_all_the_same(
    page: Page, service: Service, complaints: Complaints
) -> None:
    complaints.expect(NOT_READY)
    page.goto("/")
    paint(page, MANY_STEPS)
    await_step(page)
    (worker,) = service.workers("images")
    os.kill(worker, signal.SIGKILL)
    painted(page)


def test_a_restart_of_redis_costs_no_picture(
    page: Page, service: Service, complaints: Complaints
) -> None:
    complaints.expect(NOT_READY, BROKEN_OFF)
    page.goto("/")
    paint(page, MANY_STEPS)
    await_step(page)
    (redis,) = [pid for pid in tree_of(service.process.pid) if "valkey" in read(pid, "comm")]
    os.kill(redis, signal.SIGKILL)
    painted(page)
    expect(page.locator("#status .state")).to_have_text("Ready")


def test_a_service_that_is_away_is_said_until_it_is_back(
    page: Page, service: Service, complaints: Complaints
) -> None:
    complaints.expect(NOT_READY, BROKEN_OFF)
    page.route("**/readyz", lambda route: route.fulfill(body="<p>Sign in to this network"))
    page.goto("/")
    state = page.locator("#status .state")
    expect(state).to_have_text("The service's answer broke off.")
    (api,) = [pid for pid in tree_of(service.process.pid) if read(pid, "comm").startswith("api-")]
    page.route("**/readyz", lambda route: route.abort())
    expect(state).to_have_text("The service cannot be reached.")
    os.kill(api, signal.SIGKILL)
    page.unroute("**/readyz")
    expect(state).to_have_text("Ready")
    poll_until(lambda: httpx.get(f"{service.url}/readyz").status_code == httpx.codes.OK)
