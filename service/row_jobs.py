"""From what a request asks to classify or embed to its job, whichever route it came by."""

from fastapi import Request

from service.dependencies import Parts, card_of
from service.errors import RequestError
from service.fingerprints import reuse_of
from service.long_work import work_through
from service.request_bodies import read_json, validated
from service.schemas.classify import ClassifyRequest, HuggingFaceRequest, Upload, images_of
from service.schemas.embeddings import EmbeddingsRequest
from service.schemas.tei import EmbedRequest
from service.submitting import NewJob
from worker.contract.jobs import Task

_HUGGING_FACE = frozenset({"inputs", "parameters"})  # which only its clients send


def upload_of(content: object, max_images: int) -> Upload:
    """Read a body that was JSON."""
    if isinstance(content, dict) and not _HUGGING_FACE.isdisjoint(content):
        for name in ClassifyRequest.model_fields.keys() - HuggingFaceRequest.model_fields.keys():
            if name in content:
                message = f"{name}: given beside Hugging Face's inputs and parameters"
                raise RequestError(name, f"{message}; allowed: the names of one of the two")
        theirs = validated(content, HuggingFaceRequest)
        return Upload(images_of("inputs", theirs.inputs, max_images), theirs.options)
    ours = validated(content, ClassifyRequest)
    return Upload(images_of("input", ours.input, max_images), ours)


async def classify_job(upload: Upload, request: Request, parts: Parts) -> NewJob:
    """Make the job of an upload; raises RequestError for what the model does not take."""
    card = await card_of(request, parts, upload.options.model, Task.CLASSIFY)
    settings = parts.settings

    def new_job() -> NewJob:
        job = upload.to_job(card, settings.max_image_bytes, parts.now(), settings.job_timeout_s)
        return NewJob(job, reuse_of(job, card, request, settings))

    return await work_through(upload.num_bytes, new_job)


async def embeddings_job(body: EmbeddingsRequest, request: Request, parts: Parts) -> NewJob:
    """Make the job of a request; raises RequestError for what the model does not take."""
    card = await card_of(request, parts, body.model, Task.EMBEDDINGS)
    settings = parts.settings

    def new_job() -> NewJob:
        job = body.to_job(card, settings.max_embedding_texts, parts.now(), settings.job_timeout_s)
        return NewJob(job, reuse_of(job, card, request, settings))

    return await work_through(body.num_bytes, new_job)


async def embed_job(model: str | None, request: Request, parts: Parts) -> NewJob:
    """Make the job of a body as text-embeddings-inference has it."""
    body = await read_json(request, EmbedRequest)
    return await embeddings_job(body.in_our_words(model), request, parts)
