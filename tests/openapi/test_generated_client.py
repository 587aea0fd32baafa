"""openapi-python-client makes a client of the description, and the client works.

It is made once, as its user makes it: by the command, from the file, with `client.yaml`.
"""

import base64
import importlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from service.openapi import render
from tests.service.conftest import PNG, PNG_BASE64

CONFIG = Path(__file__).parent / "client.yaml"

pytestmark = pytest.mark.usefixtures("worker")


class GeneratedClient:
    """The package that was generated, and a client of the service from it."""

    def __init__(self, package: ModuleType, url: str) -> None:
        self._package = package.__name__
        self.of_service = self._module("client").Client(base_url=url)

    def call(self, tag: str, operation: str, *arguments: object, **fields: object) -> Any:  # noqa: ANN401
        """Call an operation, and return what the client made of the answer."""
        function = self._module(f"api.{tag}.{operation}").sync
        return function(*arguments, client=self.of_service, **fields)

    def model(self, name: str, **fields: object) -> object:
        return getattr(self._module("models"), name)(**fields)

    def file(self, content: bytes) -> object:
        file = self._module("types").File
        return file(io.BytesIO(content), "image.png", "image/png")

    def _module(self, name: str) -> Any:  # noqa: ANN401
        return importlib.import_module(f"{self._package}.{name}")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("generated")
    description = folder / "openapi.yaml"
    description.write_text(render(), encoding="utf-8")
    options = ["--path", str(description), "--config", str(CONFIG), "--meta", "none"]
    program = Path(sys.executable).parent / "openapi-python-client"
    made = subprocess.run(
        [program, "generate", *options, "--output-path", str(folder / "triptych_client")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "WARNING" not in made.stdout + made.stderr, made.stdout
    sys.path.insert(0, str(folder))
    yield importlib.import_module("triptych_client")
    sys.path.remove(str(folder))


@pytest.fixture
def client(
    package: ModuleType,
    http: object,  # noqa: ARG001
    service_url: str,
) -> Iterator[GeneratedClient]:
    made = GeneratedClient(package, service_url)
    with made.of_service:
        yield made


def test_it_paints(client: GeneratedClient) -> None:
    body = client.model("ImageRequest", prompt="a red circle", n=2, seed=7)
    images = client.call("images", "create_images", body=body)
    assert [image.seed for image in images.data] == [7, 8]
    assert base64.b64decode(images.data[0].b64_json) == PNG


def test_it_edits_a_file(client: GeneratedClient) -> None:
    body = client.model("ImageEditForm", prompt="a blue star", image=client.file(PNG))
    images = client.call("images", "edit_image", body=body)
    assert images.strength == 0.6


def test_it_classifies(client: GeneratedClient) -> None:
    body = client.model("ClassifyRequest", input_=PNG_BASE64, top_k=2)
    found = client.call("classify", "create_classification", body=body)
    assert [best.label for best in found.data[0].predictions] == ["label 0", "label 1"]


def test_it_embeds(client: GeneratedClient) -> None:
    body = client.model("EmbeddingsRequest", input_=["a", "bc"])
    answer = client.call("embeddings", "create_embeddings", body=body)
    assert [item.embedding[0] for item in answer.data] == [1.0, 2.0]


def test_it_lists_models(client: GeneratedClient) -> None:
    models = client.call("models", "list_models").data
    assert [model.id for model in models] == ["flux_shapes", "vit_shapes", "f_net_shapes"]
    assert models[0].limits.side_multiple == 16


def test_it_follows_a_job_to_its_result(client: GeneratedClient) -> None:
    body = client.model("ImageRequest", prompt="a red circle", seed=1)
    job = client.call("images", "create_images", body=body, prefer="respond-async")
    events = client.call("jobs", "get_job_events", job.id)
    assert "event: finished" in events
    job = client.call("jobs", "get_job", job.id)
    assert (job.status, job.result.data[0].seed) == ("succeeded", 1)


def test_it_tells_an_error_by_its_code(client: GeneratedClient) -> None:
    body = client.model("ImageRequest", prompt="a red circle", size="1x1")
    answer = client.call("images", "create_images", body=body)
    assert (answer.error.code, answer.error.param) == ("invalid_value", "size")
