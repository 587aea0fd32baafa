"""Bodies of Hugging Face's inference routes, for the tasks that are served here.

https://github.com/huggingface/huggingface.js/tree/main/packages/tasks/src/tasks, spec/input.json
"""

from collections.abc import Mapping

from pydantic import Field, RootModel

from service.errors import RequestError
from service.schemas.fields import RequestBody, ResponseBody, Text
from service.schemas.tei import EmbedResponse
from worker.contract.jobs import ClassifyResult

_NOT_HERE = frozenset(
    {"model", "n", "partial_images", "response_format", "stream", "stream_options"}
)


class PaintRequest(RequestBody):
    """What to paint: text-to-image, or image-to-image where the prompt is among the parameters."""

    inputs: Text = Field(description="the prompt; or the image to start from, in base64")
    parameters: dict[str, object] | None = Field(
        None,
        description="`num_inference_steps`, `guidance_scale`, `width`, `height`, `seed` and the "
        "others of /v1/images/generations",
    )

    @property
    def field(self) -> str:
        """The field of /v1/images/generations that `inputs` is."""
        return "image" if "prompt" in (self.parameters or {}) else "prompt"

    def in_our_words(self, model: str | None) -> Mapping[str, object]:
        """The body of /v1/images/generations, which is still to be checked.

        Raises RequestError for what would not be answered with one image, or is said elsewhere.
        """
        for name in _NOT_HERE.intersection(self.parameters or {}):
            message = f"{name}: not a parameter here, where the answer is one image of one model"
            raise RequestError(name, message, "unknown_parameter")
        return {**(self.parameters or {}), self.field: self.inputs, "model": model}


class LabelScore(ResponseBody):
    label: str
    score: float


class LabelScores(RootModel[list[LabelScore]]):
    """The best labels of an image, best first."""

    @classmethod
    def from_result(cls, result: ClassifyResult) -> "LabelScores":
        [best] = result.predictions
        return cls([LabelScore(label=each.label, score=each.score) for each in best])


class InferenceResponse(RootModel[LabelScores | EmbedResponse]):
    """By the model's task; of a text-to-image model the answer is an image."""
