"""`POST /v1/embeddings`: OpenAI's route to text embeddings."""

from fastapi import APIRouter, Request, Response

from service.dependencies import CurrentParts, CurrentPreference
from service.fingerprints import reuse_of
from service.json_response import json_response
from service.responses import answers_with, run
from service.schemas.embeddings import EmbeddingsRequest, EmbeddingsResponse
from service.submitting import NewJob
from worker.contract.jobs import EmbeddingsResult, Task
from worker.contract.record import Record

router = APIRouter(tags=["embeddings"])


@router.post(
    "/v1/embeddings",
    response_model=None,
    responses=answers_with(EmbeddingsResponse),
)
async def create_embeddings(
    body: EmbeddingsRequest, request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Embed one text or many; embeddings have unit length and keep the order of the input."""
    card = await parts.catalog.card(body.model, Task.EMBEDDINGS)
    settings = parts.settings
    job = body.to_job(card, settings.max_embedding_texts, parts.now(), settings.job_timeout_s)

    async def respond(record: Record) -> Response:
        result = record.result
        assert isinstance(result, EmbeddingsResult), "this is a bug: another task's result"
        return json_response(
            EmbeddingsResponse.from_result(record, result, body.encoding_format or "float")
        )

    new = NewJob(job, reuse_of(job, card, request, settings))
    return await run(new, parts, preference, request, respond)
