"""What every route answers with."""

from fastapi import Response

from service.errors import ErrorEnvelope
from service.schemas.fields import ResponseBody

ERRORS: dict[int | str, dict[str, object]] = {
    "4XX": {"model": ErrorEnvelope, "description": "the request cannot be served as it is"},
    "5XX": {"model": ErrorEnvelope, "description": "the service or the job failed"},
}


def json_response(body: ResponseBody, status: int = 200) -> Response:
    return Response(body.model_dump_json(), status, media_type="application/json")
