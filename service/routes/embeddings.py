"""`POST /v1/embeddings`: OpenAI's route to text embeddings."""

from fastapi import APIRouter, Request, Response

from service.api_description import component
from service.dependencies import CurrentParts, CurrentPreference
from service.json_response import json_in_rows
from service.long_work import work_through
from service.request_bodies import JSON, read_json
from service.responses import answers_with, run
from service.route_errors import BODY
from service.row_jobs import embeddings_job
from service.row_responses import answer_bytes
from service.schemas.embeddings import EmbeddingsRequest, EmbeddingsResponse
from worker.contract.jobs import EmbeddingsResult
from worker.contract.record import Record

router = APIRouter(tags=["embeddings"])


@router.post(
    "/v1/embeddings",
    response_model=None,
    responses=answers_with(EmbeddingsResponse, BODY),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": component(EmbeddingsRequest)}},
        }
    },
)
async def create_embeddings(
    request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Embed one text or many, in the order of the input."""
    body = await read_json(request, EmbeddingsRequest)
    encoding_format = body.encoding_format or "float"

    async def respond(record: Record) -> Response:
        result = record.result
        assert isinstance(result, EmbeddingsResult), "this is a bug: another task's result"
        return await work_through(
            answer_bytes(result),
            lambda: json_in_rows(EmbeddingsResponse.from_result(record, result, encoding_format)),
        )

    new = await embeddings_job(body, request, parts)
    return await run(new, parts, preference, request, respond)
