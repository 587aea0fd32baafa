"""LoRAs by name, image-to-image and true classifier-free guidance over HTTP, as diffusers paints.

One `triptych serve` with a tiny checkpoint of diffusers' and LoRAs that diffusers and PEFT wrote:
a file, a file of a hub's repository and a directory.
"""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import torch
from diffusers import FluxPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image

from tests.models.flux.conftest import tiny_pipeline
from tests.models.flux.loops import (
    PROMPT,
    UNWANTED,
    image_to_image_oracle,
    shifted_oracle,
    start_image,
)
from tests.models.flux.lora_oracle import write
from tests.models.flux.lora_styles import PEFT, Sizes, random_adapters
from tests.models.flux.test_painting_with_lora import load, write_lora
from tests.models.presets.hubs import protocols
from tests.models.presets.hubs.loopback import Loopback, Repository
from tests.running_service import Service, hub_settings, poll_until, start_service, stop_service
from tests.worker.test_image_decoding import png_of_declared_size

# PEFT's remark on a second adapter, which is meant
pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),
    pytest.mark.usefixtures("one_thread"),  # the oracles are tiny, and the other core is a worker's
]

ROUTE = "/v1/images/generations"
WIDTH, HEIGHT, NUM_STEPS, SEED = 64, 96, 5, 7
CONFIG = """
[[models]]
name = "oil"
handle = "{oil}"
dtype = "float32"  # as diffusers computes here
default_size = "64x96"
num_steps = 5
loras = {{ one = "{loras}/one.safetensors", two = "hf://someone/styles/two.safetensors", peft = "{loras}/peft" }}

[[models]]
name = "misfit"
handle = "{oil}"
loras = {{ one = "{loras}/one.safetensors", alien = "{loras}/alien.safetensors" }}
"""  # noqa: E501  # a table in TOML is one line


@dataclass(frozen=True, slots=True)
class Written:
    """What diffusers and PEFT wrote."""

    oil: Path
    loras: Path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    directory = tmp_path_factory.mktemp("models")
    oil, loras = directory / "oil", directory / "loras"
    loras.mkdir()
    pipeline = tiny_pipeline(has_guidance=True, use_dynamic_shifting=True)
    pipeline.save_pretrained(oil, safe_serialization=True)
    for seed, name in enumerate(("one", "two")):
        write_lora(loras, load(oil), name, seed)
    torch.manual_seed(2)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["to_v"], init_lora_weights=False)
    get_peft_model(load(oil).transformer, config).save_pretrained(str(loras / "peft"))
    # of a transformer with other widths
    alien = {"transformer_blocks.0.attn.to_q": Sizes(rank=2, out_features=48, in_features=48)}
    write(random_adapters(alien, PEFT), loras / "alien.safetensors")
    return Written(oil, loras)


@pytest.fixture(scope="module")
def service(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data_dir = tmp_path_factory.mktemp("data")
    config = data_dir / "triptych.toml"
    config.write_text(CONFIG.format(oil=written.oil, loras=written.loras), encoding="utf-8")
    files = [written.loras / f"{name}.safetensors" for name in ("one", "two")]
    with Loopback((protocols.hugging_face,)) as hub:
        hub.add("hf:someone/styles", Repository({file.name: file.read_bytes() for file in files}))
        settings = hub_settings(hub, data_dir)
        running = start_service(data_dir, TRIPTYCH_CONFIG=str(config), **settings)
        yield running
        stop_service(running)


@pytest.fixture(scope="module")
def plain(written: Written) -> FluxPipeline:
    return load(written.oil)


@pytest.fixture(scope="module")
def without(plain: FluxPipeline) -> np.ndarray:
    """What the checkpoint paints without any option."""
    return painted_by_diffusers(plain)


@pytest.fixture(scope="module")
def adapted(written: Written) -> FluxPipeline:
    pipeline = load(written.oil)
    for name in ("one", "two"):
        file = f"{name}.safetensors"
        pipeline.load_lora_weights(written.loras, weight_name=file, adapter_name=name)
    return pipeline


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as made:
        yield made


def pixels_of(encoded: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), dtype=int)


def paint(client: httpx.Client, **fields: object) -> np.ndarray:
    """The first image [H, W, 3]."""
    answer = client.post(ROUTE, json={"prompt": PROMPT, "model": "oil", "seed": SEED, **fields})
    assert answer.status_code == httpx.codes.OK, answer.text
    return pixels_of(answer.json()["data"][0]["b64_json"])


def image_of_job(client: httpx.Client, job_id: str) -> np.ndarray:
    """The first image of a job, once it is there."""
    poll_until(lambda: client.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded")
    url = client.get(f"/v1/jobs/{job_id}").json()["result"]["data"][0]["url"]
    return np.asarray(Image.open(io.BytesIO(client.get(url).content)), dtype=int)


def painted_by_diffusers(oracle: FluxPipeline, **arguments: object) -> np.ndarray:
    image = oracle(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=NUM_STEPS,
        guidance_scale=3.5,
        generator=torch.Generator().manual_seed(SEED),
        **{"max_sequence_length": 48} | arguments,
    ).images[0]
    return np.asarray(image, dtype=int)


def encoded(image: Image.Image, file_format: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return base64.b64encode(buffer.getvalue()).decode()


def assert_same(got: np.ndarray, wanted: np.ndarray, unlike: np.ndarray) -> None:
    """Within one grey level of the oracle's, and visibly not what it is without the option."""
    assert np.abs(got - wanted).max() <= 1
    assert np.abs(got - unlike).max() > 10


def test_the_models_loras_are_listed(client: httpx.Client) -> None:
    assert client.get("/v1/models/oil").json()["loras"] == ["one", "two", "peft"]


def test_without_a_lora_it_paints_as_the_checkpoint_does(
    client: httpx.Client, without: np.ndarray
) -> None:
    assert np.abs(paint(client) - without).max() <= 1


def test_text_length_and_flow_shift_paint_as_in_diffusers(
    client: httpx.Client, written: Written, without: np.ndarray
) -> None:
    oracle = shifted_oracle(load(written.oil), 4.0)
    got = paint(client, max_sequence_length=8, flow_shift=4.0)
    assert_same(got, painted_by_diffusers(oracle, max_sequence_length=8), unlike=without)


@pytest.mark.parametrize(
    "scales",
    [{"one": 0.7}, {"one": 1.5}, {"two": 1.0}, {"one": 1.2, "two": 0.4}],
    ids=["one at 0.7", "one at 1.5", "one of a hub", "two at once"],
)
def test_loras_paint_as_in_diffusers(
    client: httpx.Client, without: np.ndarray, adapted: FluxPipeline, scales: dict[str, float]
) -> None:
    adapted.set_adapters(list(scales), list(scales.values()))
    chosen = [{"name": name, "scale": scale} for name, scale in scales.items()]
    got = paint(client, loras=chosen)
    assert_same(got, painted_by_diffusers(adapted), unlike=without)


def test_a_directory_of_peft_paints_as_with_peft(
    client: httpx.Client, written: Written, without: np.ndarray
) -> None:
    oracle = load(written.oil)
    adapter = PeftModel.from_pretrained(oracle.transformer, written.loras / "peft")
    oracle.transformer = adapter.merge_and_unload()
    got = paint(client, loras=[{"name": "peft"}])
    assert_same(got, painted_by_diffusers(oracle), unlike=without)


def test_requests_with_other_loras_in_one_queue_do_not_disturb_each_other(
    client: httpx.Client,
) -> None:
    choices = [[{"name": "one"}], [{"name": "two"}], [], [{"name": "two", "scale": 0.5}]] * 2
    body = {"prompt": PROMPT, "model": "oil", "seed": SEED}
    alone = [paint(client, loras=chosen) for chosen in choices[:4]]
    headers = {"Prefer": "respond-async"}
    jobs = [
        client.post(ROUTE, json={**body, "loras": chosen}, headers=headers).json()["id"]
        for chosen in choices
    ]
    for job_id, expected in zip(jobs, alone * 2, strict=True):
        # of 255 levels: sums of a batch are in another order
        assert np.abs(image_of_job(client, job_id) - expected).max() <= 1


def test_an_unknown_lora_is_a_400_that_names_those_there_are(client: httpx.Client) -> None:
    answer = client.post(ROUTE, json={"prompt": "x", "model": "oil", "loras": [{"name": "three"}]})
    assert answer.status_code == httpx.codes.BAD_REQUEST
    error = answer.json()["error"]
    assert error["param"] == "loras[0].name"
    assert error["message"].endswith('got "three"; allowed: one, two, peft')


def test_a_lora_that_does_not_fit_is_refused_at_the_start_by_name(
    service: Service, client: httpx.Client
) -> None:
    says = "LoRA alien does not fit"
    poll_until(lambda: client.get("/v1/models/misfit").json()["state"] == "failed")
    model = client.get("/v1/models/misfit").json()
    assert says in model["reason"]
    assert "of a wrong shape: transformer.transformer_blocks.0.attn.to_q" in model["reason"]
    answer = client.post(ROUTE, json={"prompt": "x", "model": "misfit"})
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.json()["error"]["code"] == "model_unusable"
    assert says in answer.json()["error"]["message"]
    assert str(service.data_dir.parent) not in answer.text
    lines = service.log.read_text(encoding="utf-8").splitlines()
    assert any("event=model_unusable model=misfit" in line and says in line for line in lines)


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_image_to_image_paints_as_in_diffusers(
    client: httpx.Client, plain: FluxPipeline, strength: float
) -> None:
    image = start_image(1)
    oracle = image_to_image_oracle(plain)
    expected = painted_by_diffusers(oracle, image=image, strength=strength)
    uri = f"data:image/png;base64,{encoded(image)}"
    got = paint(client, image=uri, strength=strength)
    assert np.abs(got - expected).max() <= 1
    if strength == 0.6:  # the default
        assert np.array_equal(paint(client, image=encoded(image)), got)


@pytest.mark.parametrize("scale", [4.0, 8.0])
def test_true_guidance_paints_as_in_diffusers(
    client: httpx.Client, plain: FluxPipeline, without: np.ndarray, scale: float
) -> None:
    arguments = {"negative_prompt": UNWANTED, "true_cfg_scale": scale}
    expected = painted_by_diffusers(plain, **arguments)
    got = paint(client, **arguments)
    assert_same(got, expected, unlike=without)


def test_a_negative_prompt_alone_has_the_scale_that_the_model_says(client: httpx.Client) -> None:
    scale = client.get("/v1/models/oil").json()["defaults"]["true_cfg_scale"]
    got = paint(client, negative_prompt=UNWANTED)
    assert np.array_equal(got, paint(client, negative_prompt=UNWANTED, true_cfg_scale=scale))
    assert not np.array_equal(got, paint(client))


ALL = {
    "loras": [{"name": "one", "scale": 0.7}],
    "negative_prompt": UNWANTED,
    "true_cfg_scale": 2.0,
    "image": encoded(start_image(1)),
    "strength": 0.6,
}


def test_all_of_it_together_paints_as_in_diffusers(
    client: httpx.Client, adapted: FluxPipeline
) -> None:
    adapted.set_adapters(["one"], [0.7])
    expected = painted_by_diffusers(
        image_to_image_oracle(adapted),
        image=start_image(1),
        strength=0.6,
        negative_prompt=UNWANTED,
        true_cfg_scale=2.0,
    )
    assert np.abs(paint(client, **ALL) - expected).max() <= 1


def test_one_seed_with_all_of_it_is_one_image_alone_and_in_company(client: httpx.Client) -> None:
    together = client.post(
        ROUTE, json={"prompt": PROMPT, "model": "oil", "seed": SEED, "n": 3, **ALL}
    ).json()
    for index, item in enumerate(together["data"]):
        alone = paint(client, **ALL | {"seed": SEED + index})
        assert np.abs(pixels_of(item["b64_json"]) - alone).max() <= 1


def test_the_stock_client_passes_all_of_it(service: Service, client: httpx.Client) -> None:
    stock = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none")
    answer = stock.images.generate(
        model="oil", prompt=PROMPT, size="64x96", extra_body={"seed": SEED, **ALL}
    )
    assert answer.data is not None
    assert np.array_equal(pixels_of(answer.data[0].b64_json or ""), paint(client, **ALL))
    assert answer.model_extra is not None
    assert answer.model_extra["loras"] == ALL["loras"]
    assert (answer.model_extra["true_cfg_scale"], answer.model_extra["strength"]) == (2.0, 0.6)


def cut_short(file_format: str) -> str:
    content = base64.b64decode(encoded(start_image(1), file_format))
    return base64.b64encode(content[: len(content) // 2]).decode()


@pytest.mark.parametrize(
    "image",
    [
        "",
        base64.b64encode(b'<svg xmlns="http://www.w3.org/2000/svg"/>').decode(),
        base64.b64encode(b"not an image").decode(),
        cut_short("PNG"),
        cut_short("JPEG"),
        cut_short("WEBP"),
        png_of_declared_size(2**20, 2**20),
        png_of_declared_size(8000, 8000),
    ],
    ids=["nothing", "an SVG", "a text", "half a PNG", "half a JPEG", "half a WebP", "a bomb",
         "too many pixels"],
)  # fmt: skip
def test_a_hostile_start_image_is_a_400(client: httpx.Client, image: str) -> None:
    answer = client.post(ROUTE, json={"prompt": "x", "model": "oil", "image": image})
    assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("image", "invalid_image")


def test_no_start_image_is_left(service: Service, client: httpx.Client) -> None:
    paint(client, **ALL)
    poll_until(lambda: not list((service.data_dir / "images" / "start").iterdir()), timeout_s=10)
