"""What was made of texts or images as an answer: in a thread where it is long, as others wait."""

from fastapi import Response

from service.json_response import json_text
from service.long_work import work_through
from service.schemas.tei import EmbedResponse
from worker.contract.jobs import ClassifyResult, EmbeddingsResult
from worker.contract.record import AnyResult, Record

_BYTES_OF_FLOAT = 20  # 17 digits and what is around them


def answer_bytes(result: AnyResult) -> int:
    """About how long the numbers of a result are in an answer."""
    match result:
        case EmbeddingsResult():  # five or six letters of base64 are a float
            return sum(map(len, result.embeddings)) * _BYTES_OF_FLOAT // 5
        case ClassifyResult():
            return sum(map(len, result.scores or ())) * _BYTES_OF_FLOAT
        case _:
            return 0


async def vectors_alone(record: Record) -> Response:
    """As text-embeddings-inference answers."""
    result = record.result
    assert isinstance(result, EmbeddingsResult), "this is a bug: another task's result"
    return await work_through(
        answer_bytes(result), lambda: json_text(EmbedResponse.json_of(result))
    )
