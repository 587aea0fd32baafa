"""The stock `huggingface_hub.InferenceClient`, as its users run it, against the running service."""

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError

from tests.running_service import Service

PROMPT = "a red circle"


@pytest.fixture(autouse=True)
def _stay_here(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client ask no one else, as `HF_ENDPOINT` would: it looks for a list on the hub."""
    monkeypatch.setattr(constants, "ENDPOINT", service.url)


@pytest.fixture(scope="module")
def image(service: Service) -> bytes:
    """A red circle."""
    body = {"prompt": PROMPT, "seed": 3}
    headers = {"Accept": "image/png"}
    answer = httpx.post(
        f"{service.url}/v1/images/generations", json=body, headers=headers, timeout=60
    )
    return answer.raise_for_status().content


def client_of(service: Service, model: str | None) -> InferenceClient:
    """By a model's URL, or by the service's own."""
    path = "" if model is None else f"/models/{model}"
    return InferenceClient(f"{service.url}{path}", provider="hf-inference")


@pytest.mark.parametrize("model", ["vit_shapes", None])
def test_it_classifies_an_image(service: Service, image: bytes, model: str | None) -> None:
    best, *others = client_of(service, model).image_classification(image)
    assert best.label == "red circle"
    assert len(others) == 4
    assert best.score > others[0].score


@pytest.mark.parametrize("model", ["vit_shapes", None])
def test_it_classifies_an_image_as_its_parameters_say(
    service: Service, image: bytes, model: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(image)
    client = client_of(service, model)
    best, second = client.image_classification(path, top_k=2, function_to_apply="none")
    assert best.label == "red circle"
    assert best.score > 1  # a logit
    assert best.score > second.score


@pytest.mark.parametrize("model", ["flux_shapes", None])
def test_it_paints(service: Service, model: str | None) -> None:
    painted = client_of(service, model).text_to_image(
        PROMPT, width=96, height=64, num_inference_steps=4, seed=3
    )
    assert (painted.format, painted.size) == ("PNG", (96, 64))


def test_it_paints_from_an_image(service: Service, image: bytes) -> None:
    client = client_of(service, "flux_shapes")
    painted = client.image_to_image(image, prompt="a blue star", strength=0.5, size="96x64")
    assert painted.size == (96, 64)


@pytest.mark.parametrize("model", ["f_net_shapes", None])
def test_it_embeds(service: Service, model: str | None) -> None:
    client = client_of(service, model)
    one = client.feature_extraction(PROMPT)
    many = client.feature_extraction([PROMPT, "a blue star"], normalize=False, truncate=True)
    assert (one.shape, many.shape) == ((1, 128), (2, 128))
    assert np.linalg.norm(one) == pytest.approx(1)
    np.testing.assert_allclose(many[0] / np.linalg.norm(many[0]), one[0], atol=1e-5)


def test_it_reads_what_an_endpoint_is(service: Service) -> None:
    info = client_of(service, None).get_endpoint_info()
    assert info["model_id"] == "f_net_shapes"
    assert info["max_input_length"] == 512
    classifier = client_of(service, "vit_shapes").get_endpoint_info()
    assert classifier["model_type"]["classifier"]["label2id"]["red circle"] >= 0


def test_it_checks_the_health_of_the_service_and_of_a_model(service: Service) -> None:
    assert client_of(service, None).health_check()
    assert client_of(service, "flux_shapes").health_check()
    assert not client_of(service, "another").health_check()


def test_its_error_says_what_is_allowed(service: Service, image: bytes) -> None:
    with pytest.raises(HfHubHTTPError, match=r"top_k: got 1000; allowed: 1 to 112") as caught:
        client_of(service, "vit_shapes").image_classification(image, top_k=1000)
    assert caught.value.response.status_code == httpx.codes.BAD_REQUEST


# it hands bytes to httpx2 as `data`, which is deprecated there
@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_the_async_client_does_all_three_at_once(service: Service, image: bytes) -> None:
    async def all_three() -> tuple[str, tuple[int, int], tuple[int, ...]]:
        async with AsyncInferenceClient(service.url) as client:
            labels, painted, embedded = await asyncio.gather(
                client.image_classification(image),
                client.text_to_image(PROMPT, width=96, height=64, num_inference_steps=4),
                client.feature_extraction(PROMPT),
            )
        return labels[0].label, painted.size, embedded.shape

    assert asyncio.run(all_three()) == ("red circle", (96, 64), (1, 128))
