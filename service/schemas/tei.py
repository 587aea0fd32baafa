"""Bodies of text-embeddings-inference's routes, and of Hugging Face's feature extraction.

https://github.com/huggingface/text-embeddings-inference, router/src/http/types.rs and lib.rs
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, RootModel, TypeAdapter

from service.schemas.embeddings import (
    MAX_TOKENS_OF_ALL,
    EmbeddingsInput,
    EmbeddingsRequest,
    floats_of,
)
from service.schemas.fields import Absent, RequestBody, ResponseBody, Unsupported
from service.settings import ServiceSettings
from worker.contract.jobs import EmbeddingsResult, Task, TruncationSide
from worker.contract.model_cards import ModelCard


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value  # TEI's own words are Left and Right


class EmbedRequest(RequestBody):
    """What to embed, in the words of text-embeddings-inference."""

    inputs: EmbeddingsInput = Field(
        description="a text or a list of texts; or a text's token ids or a list of such, as in "
        "`input` of /v1/embeddings"
    )
    normalize: bool | None = Field(None, description="false: do not scale to length 1; null: true")
    truncate: bool | None = Field(
        None, description="true: cut an input of too many tokens; null: false, and it is an error"
    )
    truncation_direction: Annotated[TruncationSide | None, BeforeValidator(_lower)] = Field(
        None, description="with `truncate`, the end that is cut off; null: right"
    )
    dimensions: int | None = Field(None, description="only the model's own width")
    prompt_name: Unsupported = None
    encoding_format: Literal["float"] | None = None

    def in_our_words(self, model: str | None) -> EmbeddingsRequest:
        return EmbeddingsRequest(
            input=self.inputs,
            model=model,
            dimensions=self.dimensions,
            normalize=self.normalize,
            truncate=self.truncate,
            # TEI takes it without `truncate`, where it says nothing
            truncation_direction=self.truncation_direction if self.truncate else None,
        )


_VECTOR = TypeAdapter(list[float])


class EmbedResponse(RootModel[list[list[float]]]):
    """One embedding per input, also where there was one."""

    @classmethod
    def json_of(cls, result: EmbeddingsResult) -> bytes:
        """Dump the vectors of a result one by one (see `json_response`)."""
        vectors = (_VECTOR.dump_json(floats_of(encoded)) for encoded in result.embeddings)
        return b"[" + b",".join(vectors) + b"]"


class EmbeddingModel(ResponseBody):
    pooling: Literal["mean"] = "mean"  # as /embed pools


class ClassifierModel(ResponseBody):
    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(ResponseBody):
    embedding: Absent[EmbeddingModel] = None
    classifier: Absent[ClassifierModel] = None


_PIPELINES: Mapping[Task, str] = {
    Task.IMAGES: "text-to-image",
    Task.CLASSIFY: "image-classification",
    Task.EMBEDDINGS: "feature-extraction",
}


class EndpointInfo(ResponseBody):
    """A model and its limits; of an embedding model all that text-embeddings-inference says."""

    model_id: str
    model_sha: str | None = Field(description="the hub's revision, or a digest of the files")
    model_dtype: str
    model_device_type: str
    model_pipeline_tag: str
    model_type: Absent[ModelType] = Field(None, description="of no text-to-image model")
    max_concurrent_requests: int = Field(description="that may wait")
    max_input_length: Absent[int] = Field(None, description="tokens of one text")
    max_batch_tokens: Absent[int] = Field(None, description="tokens of one request's texts")
    max_batch_requests: None = None
    max_client_batch_size: int = Field(description="inputs of one request")
    auto_truncate: Literal[False] = False
    tokenization_workers: int = 1
    version: str
    sha: None = None
    docker_label: None = None

    @classmethod
    def from_card(cls, card: ModelCard, settings: ServiceSettings) -> "EndpointInfo":
        num_inputs = _max_inputs(card.task, settings)
        return cls(
            model_id=card.name,
            model_sha=card.revision,
            model_dtype=card.dtype,
            model_device_type=card.device.partition(":")[0],
            model_pipeline_tag=_PIPELINES[card.task],
            model_type=_model_type(card),
            max_concurrent_requests=settings.max_queue_depth,
            max_input_length=card.max_tokens,
            max_batch_tokens=_max_tokens(card, num_inputs),
            max_client_batch_size=num_inputs,
            version=version("triptych"),
        )


def _max_inputs(task: Task, settings: ServiceSettings) -> int:
    """How many inputs Hugging Face's routes take at once."""
    of_task = {
        Task.IMAGES: 1,
        Task.CLASSIFY: settings.max_classify_images,
        Task.EMBEDDINGS: settings.max_embedding_texts,
    }
    return of_task[task]


def _max_tokens(card: ModelCard, num_inputs: int) -> int | None:
    if card.max_tokens is None:
        return None
    return min(num_inputs * card.max_tokens, MAX_TOKENS_OF_ALL)


def _model_type(card: ModelCard) -> ModelType | None:
    if card.task is Task.EMBEDDINGS:
        return ModelType(embedding=EmbeddingModel())
    if card.labels is None:
        return None
    labels = list(enumerate(card.labels))
    return ModelType(
        classifier=ClassifierModel(
            id2label={str(class_id): label for class_id, label in labels},
            label2id={label: class_id for class_id, label in labels},
        )
    )
