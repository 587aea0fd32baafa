"""Bodies of `POST /v1/embeddings`, OpenAI's field for field, and a few more."""

import base64
import sys
from array import array
from typing import Annotated, Literal, cast

from pydantic import Discriminator, Field, Tag

from service.errors import RequestError, shown
from service.schemas.fields import (
    Absent,
    Many,
    Name,
    PriorityField,
    RequestBody,
    ResponseBody,
    Text,
    end_user_of,
)
from worker.contract.jobs import (
    EmbeddingsJob,
    EmbeddingsResult,
    Pooling,
    TruncationSide,
    new_job_id,
)
from worker.contract.model_cards import ModelCard
from worker.contract.record import Record

EncodingFormat = Literal["float", "base64"]
# A text of 512 tokens has some 3,000 characters; ten times that is not worth a tokenizer's time,
# and as many token ids are not worth cutting.
_MAX_CHARACTERS = 32_000
_MAX_TOKEN_IDS = 32_000
MAX_TOKENS_OF_ALL = 300_000  # OpenAI's
# Some five to a token. What is to be cut is tokenized whole before, and others wait meanwhile.
_MAX_CHARACTERS_OF_ALL = 1_500_000
_ID_BYTES = 32

# Bounds for the description alone: checked in `to_job`, where the model's own are known.
_NOT_EMPTY = Field(json_schema_extra={"minItems": 1})
_Text = Annotated[Text, Field(json_schema_extra={"minLength": 1, "maxLength": _MAX_CHARACTERS})]
TokenIds = Annotated[Many[Annotated[int, Field(json_schema_extra={"minimum": 0})]], _NOT_EMPTY]


def _kind(value: object) -> str | None:
    """Tell the kinds of input apart by the first item, so that an error is about that kind."""
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return None
    first = value[0] if value else None
    if isinstance(first, int):
        return "token_ids"
    return "token_arrays" if isinstance(first, list) else "texts"


EmbeddingsInput = Annotated[
    Annotated[_Text, Tag("text")]
    | Annotated[Many[_Text], _NOT_EMPTY, Tag("texts")]
    | Annotated[TokenIds, Tag("token_ids")]
    | Annotated[Many[TokenIds], _NOT_EMPTY, Tag("token_arrays")],
    Discriminator(
        _kind,
        custom_error_type="input",
        custom_error_message="allowed: a string, an array of strings, an array of token ids or an "
        "array of such arrays",
    ),
]


class EmbeddingsRequest(RequestBody):
    """What to embed."""

    input: EmbeddingsInput = Field(
        description="a text or a list of texts; instead of a text also its token ids in the "
        "model's vocabulary, without special tokens, which are added as to a text. At most "
        f"{_MAX_CHARACTERS_OF_ALL:,} characters or {MAX_TOKENS_OF_ALL:,} token ids in all"
    )
    model: Name | None = Field(
        default=None, description="an embedding model; null: the default one"
    )
    encoding_format: EncodingFormat | None = Field(
        default=None, description="null: float; base64 holds little-endian float32"
    )
    dimensions: int | None = Field(default=None, description="only the model's own width")
    pooling: Pooling | None = Field(
        default=None,
        description="what makes one vector of a text's tokens. mean (also null): their mean, "
        "special ones included; cls: the first one, [CLS]",
    )
    normalize: bool | None = Field(
        default=None, description="false: vectors are not scaled to length 1; null: true"
    )
    truncate: bool | None = Field(
        default=None,
        description="true: an input of too many tokens is cut, and `truncated` names it; null: "
        "false, it is an error",
    )
    truncation_direction: TruncationSide | None = Field(
        default=None, description="with `truncate`: the end that is cut off; null: right"
    )
    priority: PriorityField = None
    user: Name | None = Field(
        default=None, description="the person it is for, kept with the job as its SHA-256"
    )

    @property
    def num_bytes(self) -> int:
        """Of texts and token ids as they lie in memory: how long work on them takes."""
        return sum(len(each) * (1 if isinstance(each, str) else _ID_BYTES) for each in self._each)

    @property
    def _each(self) -> list[str | TokenIds]:
        is_one = _kind(self.input) in ("text", "token_ids")
        return cast(list[str | TokenIds], [self.input] if is_one else self.input)

    def to_job(
        self, card: ModelCard, max_texts: int, now: float, timeout_s: float
    ) -> EmbeddingsJob:
        """Raises RequestError for what the model does not take."""
        width = card.embedding_width
        if self.dimensions not in (None, width):
            message = f"dimensions: got {shown(self.dimensions)}; allowed: {width} or null"
            raise RequestError("dimensions", message)
        if self.truncation_direction is not None and not self.truncate:
            got = shown(self.truncation_direction)
            message = f"truncation_direction: got {got} without truncate; allowed: null"
            raise RequestError("truncation_direction", message)
        return EmbeddingsJob(
            id=new_job_id(),
            model=card.name,
            created_at=now,
            deadline_at=now + timeout_s,
            priority=self.priority or "normal",
            end_user=end_user_of(self.user),
            texts=self._texts(card, max_texts),
            pooling=self.pooling or "mean",
            normalizes=self.normalize is not False,
            truncates=self.truncate is True,
            truncation_side=self.truncation_direction or "right",
        )

    def _texts(self, card: ModelCard, max_texts: int) -> tuple[str | tuple[int, ...], ...]:
        texts = self._each
        if not 1 <= len(texts) <= max_texts:
            raise RequestError("input", f"input: got {len(texts)} texts; allowed: 1 to {max_texts}")
        num_characters = sum(len(text) for text in texts if isinstance(text, str))
        if num_characters > _MAX_CHARACTERS_OF_ALL:
            allowed = f"at most {_MAX_CHARACTERS_OF_ALL} in all"
            message = f"input: got {num_characters} characters; allowed: {allowed}"
            raise RequestError("input", message, "input_too_long")
        num_ids = sum(len(text) for text in texts if not isinstance(text, str))
        if num_ids > MAX_TOKENS_OF_ALL:
            message = f"input: got {num_ids} token ids; allowed: at most {MAX_TOKENS_OF_ALL}"
            raise RequestError("input", message, "input_too_long")
        if _kind(self.input) == "token_ids":  # it is the ids that have the indices
            return (self._token_ids("input", cast(TokenIds, self.input), card),)
        return tuple(
            _checked_text(f"input[{index}]", text)
            if isinstance(text, str)
            else self._token_ids(f"input[{index}]", text, card)
            for index, text in enumerate(texts)
        )

    def _token_ids(self, param: str, ids: TokenIds, card: ModelCard) -> tuple[int, ...]:
        assert card.max_tokens is not None, f"this is a bug: {card.name} embeds nothing"
        max_ids = card.max_tokens - (card.num_special_tokens or 0)
        allowed = _MAX_TOKEN_IDS if self.truncate else max_ids
        if not ids or len(ids) > allowed:
            code = "input_too_long" if ids else "invalid_value"
            message = f"{param}: got {len(ids)} token ids; allowed: 1 to {allowed}"
            raise RequestError(param, message, code)
        size = card.vocabulary_size or 0
        if not (min(ids) >= 0 and max(ids) < size):
            index = next(i for i, token_id in enumerate(ids) if not 0 <= token_id < size)
            message = f"{param}[{index}]: got {shown(ids[index])}; allowed: 0 to {size - 1}"
            raise RequestError(f"{param}[{index}]", message)
        return tuple(ids)


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
    truncated: Absent[list[int]] = Field(
        default=None, description="with `truncate`: the indices of the inputs that were cut"
    )

    @classmethod
    def from_result(
        cls, record: Record, result: EmbeddingsResult, encoding_format: EncodingFormat
    ) -> "EmbeddingsResponse":
        job = record.job
        truncates = isinstance(job, EmbeddingsJob) and job.truncates
        return cls(
            data=[
                Embedding(
                    index=i, embedding=text if encoding_format == "base64" else floats_of(text)
                )
                for i, text in enumerate(result.embeddings)
            ],
            model=job.model,
            usage=EmbeddingsUsage(prompt_tokens=result.num_tokens, total_tokens=result.num_tokens),
            id=record.id,
            truncated=list(result.truncated) if truncates else None,
        )


def _checked_text(param: str, text: str) -> str:
    if not 1 <= len(text) <= _MAX_CHARACTERS:
        message = f"{param}: got {len(text)} characters; allowed: 1 to {_MAX_CHARACTERS}"
        raise RequestError(param, message)
    return text


def floats_of(encoded: str) -> list[float]:
    floats = array("f", base64.b64decode(encoded))
    if sys.byteorder == "big":
        floats.byteswap()  # the wire is little-endian
    return floats.tolist()
