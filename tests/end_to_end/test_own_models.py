"""What people bring, served: each library's checkpoints, from a hub and from the disk, over HTTP.

The answers are those of the library that wrote the checkpoint.
"""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from transformers import (
    FNetConfig,
    FNetForPreTraining,
    FNetTokenizer,
    ViTForImageClassification,
    ViTImageProcessor,
)

from tests.models.flux.conftest import tiny_pipeline
from tests.models.flux.original_files import original_transformer, tiny_original, write
from tests.models.presets.hubs import protocols
from tests.models.presets.hubs.loopback import Loopback, Repository
from tests.models.random_weights import randomise
from tests.models.vit.transformers_oracles import IMAGE_SIZE, LABELS, classifying_oracle
from tests.running_service import Service, hub_settings, start_service, stop_service

RECORDED = Path(__file__).parents[1] / "models" / "fnet" / "recorded"
TEXT = "The quick brown fox, 12, jumps over the lazy dog"
PROMPT = "a red circle"
WIDTH, HEIGHT, NUM_STEPS, SEED = 64, 96, 3, 7
CONFIG = """
[[models]]
name = "merge"
handle = "{merge}"
default_size = "64x96"
num_steps = 3
aliases = ["gpt-image-1"]

[[models]]
name = "fp8"
handle = "{fp8}"
dtype = "float32"
default_size = "64x96"
num_steps = 3

[[models]]
name = "pets"
handle = "hf://someone/vit-pets"

[[models]]
name = "reader"
handle = "{reader}"

[[models]]
name = "keras/reader"
handle = "{keras}"

[[models]]
name = "nobody"
handle = "hf://someone/nobody"
task = "embeddings"
"""


@dataclass(frozen=True, slots=True)
class Oracles:
    merge: FluxPipeline
    fp8: FluxPipeline
    pets: ViTForImageClassification
    reader: FNetForPreTraining
    directory: Path


@pytest.fixture(scope="module")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Oracles:
    """Each library's model, saved as its users save it."""
    directory = tmp_path_factory.mktemp("models")
    merge = tiny_pipeline(has_guidance=True, use_dynamic_shifting=True)
    merge.save_pretrained(directory / "merge", safe_serialization=True)

    fp8 = tiny_pipeline(has_guidance=False, use_dynamic_shifting=False)
    fp8.save_pretrained(directory / "fp8", safe_serialization=True)
    for file in (directory / "fp8" / "transformer").iterdir():
        file.unlink()
    (directory / "fp8" / "transformer").rmdir()
    (directory / "fp8" / "model_index.json").unlink()
    transformer = tiny_original(has_guidance=False)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.copy_(parameter.to(torch.float8_e4m3fn).float())
    stored = {k: v.to(torch.float8_e4m3fn) for k, v in original_transformer(transformer).items()}
    write(directory / "fp8" / "flux1-oil-fp8.safetensors", stored)
    fp8.transformer = transformer
    for pipeline in (merge, fp8):
        pipeline.set_progress_bar_config(disable=True)

    pets = classifying_oracle()
    pets.save_pretrained(directory / "pets")
    height, width = IMAGE_SIZE
    processor = ViTImageProcessor(size={"height": height, "width": width})
    processor.save_pretrained(directory / "pets")

    config = FNetConfig(vocab_size=90, hidden_size=8, num_hidden_layers=2, intermediate_size=12)
    reader = FNetForPreTraining(config).eval()
    randomise(reader)
    reader.save_pretrained(directory / "reader")
    tokenizer = FNetTokenizer.from_pretrained(RECORDED / "transformers_4_fast")
    tokenizer.save_pretrained(directory / "reader")
    return Oracles(merge, fp8, pets, reader, directory)


@pytest.fixture(scope="module")
def service(oracles: Oracles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`triptych serve` with a configuration of its own and a hub on this machine."""
    data_dir = tmp_path_factory.mktemp("data")
    directory = oracles.directory
    config = data_dir / "triptych.toml"
    places = {name: directory / name for name in ("merge", "fp8", "reader")}
    config.write_text(CONFIG.format(keras=RECORDED / "masked_lm", **places), encoding="utf-8")
    with Loopback((protocols.hugging_face,)) as hub:
        files = {file.name: file.read_bytes() for file in (directory / "pets").iterdir()}
        hub.add("hf:someone/vit-pets", Repository(files))
        settings = hub_settings(hub, data_dir)
        running = start_service(data_dir, TRIPTYCH_CONFIG=str(config), **settings)
        yield running
        stop_service(running)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as made:
        yield made


def paint(client: httpx.Client, model: str, **fields: object) -> np.ndarray:
    """An image [H, W, 3] with the model's defaults."""
    body = {"prompt": PROMPT, "model": model, "seed": SEED, **fields}
    answer = client.post("/v1/images/generations", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    png = base64.b64decode(answer.json()["data"][0]["b64_json"])
    return np.asarray(Image.open(io.BytesIO(png)), dtype=int)


def painted_by_diffusers(oracle: FluxPipeline, guidance_scale: float) -> np.ndarray:
    image = oracle(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=NUM_STEPS,
        guidance_scale=guidance_scale,
        max_sequence_length=48,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    return np.asarray(image, dtype=int)


def test_the_list_is_what_was_configured(client: httpx.Client) -> None:
    models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert list(models) == ["merge", "fp8", "pets", "reader", "keras/reader", "nobody"]
    configured, *taken = models["merge"]["aliases"]
    assert configured == "gpt-image-1"
    assert "dall-e-3" in taken
    assert (models["fp8"]["dtype"], models["merge"]["family"]) == ("float32", "FluxBackbone")
    assert models["pets"]["source"] == "hf://someone/vit-pets"
    assert len(models["pets"]["revision"]) == 40
    assert [name for name, model in models.items() if not model["loaded"]] == ["nobody"]


def test_a_diffusers_directory_paints_as_diffusers_does(
    client: httpx.Client, oracles: Oracles
) -> None:
    expected = painted_by_diffusers(oracles.merge, guidance_scale=3.5)
    for name in ("merge", "gpt-image-1"):
        assert np.abs(paint(client, name) - expected).max() <= 1


def test_an_original_file_in_float8_paints_as_diffusers_does(
    client: httpx.Client, oracles: Oracles
) -> None:
    expected = painted_by_diffusers(oracles.fp8, guidance_scale=0.0)
    assert np.abs(paint(client, "fp8") - expected).max() <= 1


def test_a_fine_tuned_vit_of_a_hub_sees_as_transformers_does(
    client: httpx.Client, oracles: Oracles
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image, buffer = Image.fromarray(levels), io.BytesIO()
    image.save(buffer, "PNG")
    body = {"input": base64.b64encode(buffer.getvalue()).decode(), "model": "pets"}
    [seen] = client.post("/v1/classify", json=body).raise_for_status().json()["data"]
    processor = ViTImageProcessor.from_pretrained(oracles.directory / "pets")
    with torch.inference_mode():
        logits = oracles.pets(**processor(image, return_tensors="pt")).logits[0]
    expected = dict(zip(LABELS, logits.softmax(dim=0).tolist(), strict=True))
    scores = {each["label"]: each["score"] for each in seen["predictions"]}
    assert scores == pytest.approx(expected, abs=1e-5)
    assert client.get("/v1/models/pets").json()["labels"] == list(LABELS)


def test_an_fnet_directory_embeds_as_transformers_does(
    client: httpx.Client, oracles: Oracles
) -> None:
    body = {"input": TEXT, "model": "reader"}
    [found] = client.post("/v1/embeddings", json=body).raise_for_status().json()["data"]
    tokenizer = FNetTokenizer.from_pretrained(oracles.directory / "reader")
    row = tokenizer(TEXT, padding="max_length", max_length=64, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        features = oracles.reader.fnet(input_ids=row).last_hidden_state[0]
    mean = features[row[0] != tokenizer.pad_token_id].mean(dim=0)
    assert found["embedding"] == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)


def test_a_preset_that_keras_hub_wrote_embeds(client: httpx.Client) -> None:
    body = {"input": [TEXT, TEXT], "model": "keras/reader"}
    one, other = client.post("/v1/embeddings", json=body).raise_for_status().json()["data"]
    width = client.get("/v1/models/keras/reader").json()["limits"]["dimensions"]
    assert len(one["embedding"]) == width
    assert one["embedding"] == other["embedding"]
    assert float(np.linalg.norm(one["embedding"])) == pytest.approx(1.0, abs=1e-5)


def test_a_model_that_did_not_load_is_said_and_stops_nothing(
    service: Service, client: httpx.Client
) -> None:
    answer = client.post("/v1/embeddings", json={"input": TEXT, "model": "nobody"})
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.json()["error"]["code"] == "model_unusable"
    log = service.log.read_text(encoding="utf-8")
    assert "reason=hf://someone/nobody: Hugging Face has no" in log


def test_a_built_in_name_that_is_not_configured_is_not_there(client: httpx.Client) -> None:
    answer = client.post("/v1/images/generations", json={"prompt": "x", "model": "flux_shapes"})
    assert answer.status_code == httpx.codes.NOT_FOUND
    assert "allowed: merge, fp8, gpt-image-1, " in answer.json()["error"]["message"]
