"""Bodies of `POST /v1/embeddings`, OpenAI's field for field."""

import base64
import sys
from array import array
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from service.errors import RequestError, shown
from service.schemas.fields import OneOrMany, PriorityField, RequestBody, ResponseBody, Text
from worker.contract.jobs import EmbeddingsJob, EmbeddingsResult, new_job_id
from worker.contract.model_cards import ModelCard
from worker.contract.record import Record

EncodingFormat = Literal["float", "base64"]

# A text of 512 tokens has some 3,000 characters; ten times that is not worth a tokenizer's time.
_MAX_CHARACTERS = 32_000


def _no_token_ids(value: object) -> object:
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        raise PydanticCustomError(
            "unsupported_value",
            "arrays of token ids are not supported; allowed: a string or an array of strings",
        )
    return value


class EmbeddingsRequest(RequestBody):
    """What to embed."""

    input: Annotated[OneOrMany, BeforeValidator(_no_token_ids)] = Field(
        description="a text or a list of texts"
    )
    model: Text | None = Field(None, description="an embedding model; null: the default one")
    encoding_format: EncodingFormat | None = Field(
        None, description="null: float; base64 holds little-endian float32"
    )
    dimensions: int | None = Field(None, description="only the model's own width")
    priority: PriorityField = None
    user: Text | None = Field(None, description="accepted and ignored")

    def to_job(
        self, card: ModelCard, max_texts: int, now: float, timeout_s: float
    ) -> EmbeddingsJob:
        """Raises RequestError for what the model does not take."""
        width = card.embedding_width
        if self.dimensions not in (None, width):
            message = f"dimensions: got {shown(self.dimensions)}; allowed: {width} or null"
            raise RequestError("dimensions", message)
        return EmbeddingsJob(
            id=new_job_id(),
            model=card.name,
            created_at=now,
            deadline_at=now + timeout_s,
            priority=self.priority or "normal",
            texts=_texts(self.input, max_texts),
        )


class Embedding(ResponseBody):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="by `encoding_format`")


class EmbeddingsUsage(ResponseBody):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(ResponseBody):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
    id: str = Field(description="the job's id")

    @classmethod
    def from_result(
        cls, record: Record, result: EmbeddingsResult, encoding_format: EncodingFormat
    ) -> "EmbeddingsResponse":
        return cls(
            data=[
                Embedding(index=i, embedding=text if encoding_format == "base64" else _floats(text))
                for i, text in enumerate(result.embeddings)
            ],
            model=record.job.model,
            usage=EmbeddingsUsage(prompt_tokens=result.num_tokens, total_tokens=result.num_tokens),
            id=record.id,
        )


def _texts(value: str | list[str], max_texts: int) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value)
    if not 1 <= len(texts) <= max_texts:
        raise RequestError("input", f"input: got {len(texts)} texts; allowed: 1 to {max_texts}")
    for index, text in enumerate(texts):
        if not 1 <= len(text) <= _MAX_CHARACTERS:
            param = "input" if isinstance(value, str) else f"input[{index}]"
            message = f"{param}: got {len(text)} characters; allowed: 1 to {_MAX_CHARACTERS}"
            raise RequestError(param, message)
    return texts


def _floats(encoded: str) -> list[float]:
    floats = array("f", base64.b64decode(encoded))
    if sys.byteorder == "big":
        floats.byteswap()  # the wire is little-endian
    return floats.tolist()
