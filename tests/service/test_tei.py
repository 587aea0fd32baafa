"""The routes of text-embeddings-inference: what its clients send, and what they read."""

import httpx
import pytest

from tests.service.conftest import TestWorker, error_of
from worker.contract.jobs import EmbeddingsJob


@pytest.mark.usefixtures("worker")
def test_one_text_is_answered_with_a_list_of_one_vector(http: httpx.Client) -> None:
    [vector] = http.post("/embed", json={"inputs": "abc"}).raise_for_status().json()
    assert (vector[0], len(vector)) == (3.0, 128)


def test_what_is_said_of_truncation_reaches_the_worker(
    http: httpx.Client, worker: TestWorker
) -> None:
    body = {"inputs": [[5, 6], [7]], "truncate": True, "truncation_direction": "Left"}
    http.post("/embed", json=body).raise_for_status()
    [job] = worker.jobs
    assert isinstance(job, EmbeddingsJob)
    assert job.texts == ((5, 6), (7,))
    assert (job.truncates, job.truncation_side, job.normalizes) == (True, "left", True)


def test_a_direction_without_truncation_says_nothing(
    http: httpx.Client, worker: TestWorker
) -> None:
    body = {"inputs": "abc", "truncate": False, "truncation_direction": "Right"}
    http.post("/embed", json=body).raise_for_status()
    [job] = worker.jobs
    assert isinstance(job, EmbeddingsJob)
    assert not job.truncates


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": ["abc", ""]}, "inputs[1]"),
        ({"inputs": "abc", "dimensions": 64}, "dimensions"),
        ({"inputs": "abc", "model": "x"}, "model"),
    ],
)
def test_what_is_wrong_is_named(http: httpx.Client, body: dict[str, object], param: str) -> None:
    error = error_of(http.post("/embed", json=body), 400)
    assert error["param"] == param
    assert str(error["message"]).startswith(f"{param}: ")


def test_the_default_embedding_model_is_described_with_all_that_clients_read(
    http: httpx.Client,
) -> None:
    info = http.get("/info").raise_for_status().json()
    assert info["model_id"] == "f_net_shapes"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["max_client_batch_size"]) == (512, 2048)
    # the fields of TEI's `Info`, router/src/lib.rs
    assert {
        "model_id", "model_sha", "model_dtype", "model_type", "max_concurrent_requests",
        "max_input_length", "max_batch_tokens", "max_batch_requests", "max_client_batch_size",
        "auto_truncate", "tokenization_workers", "version", "sha", "docker_label",
    } <= info.keys()  # fmt: skip


def test_health_is_readiness(http: httpx.Client) -> None:
    assert http.get("/health").json() == http.get("/readyz").json()


@pytest.mark.parametrize("path", ["/embed_all", "/embed_sparse", "/predict", "/rerank"])
def test_what_these_models_cannot_do_does_not_exist(http: httpx.Client, path: str) -> None:
    assert error_of(http.post(path, json={"inputs": "x"}), 404)["code"] == "not_found"
