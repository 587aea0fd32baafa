"""See: pictures by every way in, and what is said of each beside it."""

import io
import json
import urllib.request
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.playground.browser import Complaints

BAD_REQUEST = "400 (Bad Request)"  # Chromium's own line on the console, of any such answer


def picture(name: str, shape: str = "red") -> FilePayload:
    """A circle in this colour on white."""
    image = Image.new("RGB", (128, 96), (245, 245, 245))
    colours = {"red": (220, 40, 40), "blue": (40, 80, 220)}
    ImageDraw.Draw(image).ellipse((34, 18, 94, 78), fill=colours[shape])
    content = io.BytesIO()
    image.save(content, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": content.getvalue()}


def text_file(name: str) -> FilePayload:
    return {"name": name, "mimeType": "text/plain", "buffer": b"not a picture at all"}


def hand_over(page: Page, *files: FilePayload, way: str) -> None:
    """Let the page have files as a drop or a paste brings them, wherever they fall."""
    sent = [{"name": f["name"], "type": f["mimeType"], "bytes": list(f["buffer"])} for f in files]
    transfer = page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const { name, type, bytes } of files)
                transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        sent,
    )
    if way == "drop":
        page.dispatch_event("header", "drop", {"dataTransfer": transfer})
    else:
        page.evaluate(
            """(clipboardData) => document.body.dispatchEvent(
                new ClipboardEvent("paste", { clipboardData, bubbles: true }))""",
            transfer,
        )


def card(page: Page, name: str) -> Locator:
    return page.locator(".see-card").filter(has=page.get_by_role("heading", name=name, exact=True))


def labels(page: Page, name: str) -> Locator:
    return card(page, name).locator(".see-labels > li")


def best(page: Page, name: str) -> Locator:
    return labels(page, name).first.locator(".see-label")


@pytest.fixture
def see(page: Page) -> Page:
    page.goto("/#see")
    expect(page.get_by_role("button", name="Red circle")).to_be_visible()
    return page


def test_a_newcomer_sees_labels_after_one_click(see: Page) -> None:
    for name in ("Red circle", "Yellow star", "Green triangle"):
        see.get_by_role("button", name=name).click()
        expect(best(see, f"{name}.png")).to_have_text(name.lower())
        see.get_by_role("button", name=f"Remove {name}.png").click()
        expect(see.locator(".see-card")).to_have_count(0)
        expect(see.locator("#see-empty")).to_be_visible()


def test_several_pictures_are_chosen_at_once(see: Page) -> None:
    see.get_by_label("Choose pictures").set_input_files(
        [picture("a.png"), picture("b.png", "blue")]
    )
    expect(best(see, "a.png")).to_have_text("red circle")
    expect(best(see, "b.png")).to_have_text("blue circle")
    names = see.locator(".see-card h3")
    expect(names).to_have_text(["a.png", "b.png"])


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(way: str, see: Page) -> None:
    hand_over(see, picture("a.png"), picture("b.png", "blue"), way=way)
    expect(best(see, "a.png")).to_have_text("red circle")
    expect(best(see, "b.png")).to_have_text("blue circle")


def test_a_paste_elsewhere_is_not_meant_for_it(page: Page) -> None:
    page.goto("/#read")
    expect(page.get_by_label("Lines to compare")).to_be_visible()
    hand_over(page, picture("a.png"), way="paste")
    expect(page.locator(".see-card")).to_have_count(0)


def test_paint_hands_a_picture_over(page: Page) -> None:
    page.goto("/#paint")
    expect(page.locator("#see-examples button")).to_have_count(3)  # it listens
    page.evaluate(
        """(bytes) => document.dispatchEvent(new CustomEvent("triptych:classify", {
            detail: { file: new File([new Uint8Array(bytes)], "painted.png") } }))""",
        list(picture("painted.png")["buffer"]),
    )
    expect(page.get_by_role("tab", name="See")).to_have_attribute("aria-selected", "true")
    expect(best(page, "painted.png")).to_have_text("red circle")


def test_an_error_stands_beside_its_picture_alone(see: Page, complaints: Complaints) -> None:
    complaints.expect(BAD_REQUEST)
    files = [picture("a.png"), text_file("notes.txt"), picture("b.png", "blue")]
    see.get_by_label("Choose pictures").set_input_files(files)
    error = card(see, "notes.txt").get_by_role("alert")
    expect(error).to_contain_text("This picture: starts with")
    expect(error).to_contain_text("allowed: PNG, JPEG or WebP")
    expect(card(see, "notes.txt")).to_contain_text("No preview")
    expect(best(see, "a.png")).to_have_text("red circle")
    expect(best(see, "b.png")).to_have_text("blue circle")
    expect(see.get_by_role("alert")).to_have_count(1)


def test_bars_and_numbers_are_the_scores(see: Page, service_url: str) -> None:
    see.get_by_label("Choose pictures").set_input_files(picture("a.png"))
    expect(best(see, "a.png")).to_be_visible()
    request = urllib.request.Request(
        f"{service_url}/v1/classify", picture("a.png")["buffer"], {"content-type": "image/png"}
    )
    with urllib.request.urlopen(request) as response:
        predictions = json.load(response)["data"][0]["predictions"]
    expect(labels(see, "a.png").locator(".see-label")).to_have_text(
        [prediction["label"] for prediction in predictions]
    )
    score = predictions[0]["score"]
    expect(labels(see, "a.png").first.locator(".see-score")).to_have_text(f"{score * 100:.1f} %")
    bar = labels(see, "a.png").first.locator(".bar > span")
    scale = bar.evaluate("(bar) => new DOMMatrix(bar.style.transform).a")
    assert scale == pytest.approx(score, abs=1e-5)


def test_top_k_has_the_models_limits_and_counts_for_all_pictures(see: Page) -> None:
    field = see.get_by_label("Labels per picture")
    expect(field).to_have_attribute("max", "112")
    see.get_by_label("Choose pictures").set_input_files(
        [picture("a.png"), picture("b.png", "blue")]
    )
    expect(labels(see, "b.png")).not_to_have_count(0)
    field.fill("9")
    field.press("Enter")
    expect(labels(see, "a.png")).to_have_count(9)
    expect(labels(see, "b.png")).to_have_count(9)
    field.fill("113")
    field.press("Enter")
    assert not field.evaluate("(field) => field.validity.valid")
    expect(labels(see, "a.png")).to_have_count(9)


def test_a_service_out_of_reach_is_asked_again(see: Page, complaints: Complaints) -> None:
    complaints.expect("net::ERR_")
    see.route("**/v1/classify", lambda route: route.abort())
    see.get_by_role("button", name="Red circle").click()
    name = "Red circle.png"
    expect(card(see, name).get_by_role("alert")).to_have_text("The service cannot be reached.")
    see.unroute("**/v1/classify")
    card(see, name).get_by_role("button", name="Try again").click()
    expect(best(see, name)).to_have_text("red circle")
    expect(card(see, name).get_by_role("alert")).to_have_count(0)


def test_what_was_found_is_announced(see: Page) -> None:
    see.get_by_role("button", name="Red circle").click()
    expect(see.locator("#announcer")).to_contain_text("Red circle.png: red circle")


def test_removing_pictures_keeps_the_focus_on_the_page(see: Page) -> None:
    see.get_by_label("Choose pictures").set_input_files([picture("a.png"), picture("b.png")])
    see.get_by_role("button", name="Remove a.png").press("Enter")
    expect(see.get_by_role("button", name="Remove b.png")).to_be_focused()
    see.get_by_role("button", name="Remove all").press("Enter")
    expect(see.locator(".see-card")).to_have_count(0)
    expect(see.get_by_label("Choose pictures")).to_be_focused()


def test_a_picture_on_the_disk_is_shown_as_it_is(see: Page, tmp_path: Path) -> None:
    file = tmp_path / "wide.jpg"
    Image.new("RGB", (300, 100), (220, 40, 40)).save(file)
    see.get_by_label("Choose pictures").set_input_files(file)
    shown = see.get_by_role("img", name="wide.jpg")
    expect(shown).to_be_visible()
    assert shown.evaluate("(img) => [img.naturalWidth, img.naturalHeight]") == [300, 100]
