"""CLIP and T5 with their tokenizers: prompts in, features out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from models.flux.clip import ClipTextEncoder
from models.flux.formats.encoder_files import load_clip, load_t5
from models.flux.t5 import T5Encoder
from models.flux.tokenizers import TextTokenizer

MAX_T5_TOKENS = 512  # FLUX.1 was trained up to here; some tokenizers state no limit of their own
UNGUIDED_T5_TOKENS = 256  # schnell (black-forest-labs/flux, src/flux/cli.py, commit 802fb47)


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """What the transformer sees of the prompts.

    text        [B, T, 4096]  T5 features, padding included: Flux attends to it
    pooled      [B, 768]      CLIP pooled text
    num_tokens  real T5 tokens per prompt, the end token included
    truncated   whether the prompt was longer than T tokens
    """

    text: Tensor
    pooled: Tensor
    num_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]


class TextEncoders:
    """Both encoders with their tokenizers, on one device."""

    def __init__(
        self,
        clip: ClipTextEncoder,
        clip_tokenizer: TextTokenizer,
        t5: T5Encoder,
        t5_tokenizer: TextTokenizer,
    ) -> None:
        self.clip, self.t5 = clip, t5
        self._clip_tokenizer, self._t5_tokenizer = clip_tokenizer, t5_tokenizer
        self.max_tokens = min(t5_tokenizer.max_tokens, MAX_T5_TOKENS)

    @classmethod
    def from_directory(
        cls,
        directory: Path,
        device: str,
        dtype: torch.dtype | None,
        leaves_t5_on_host: bool = False,
    ) -> Self:
        """Load tokenizers from their folders and encoders from theirs, or from single files.

        `dtype` None keeps what the files hold, and means bfloat16 where that is float8.
        `leaves_t5_on_host` is for T5's blocks to be streamed.

        Raises PresetFileError for a missing or malformed file, WeightsError for weights that do
        not fit.
        """
        clip_tokenizer = TextTokenizer.clip(directory / "tokenizer")
        t5_tokenizer = TextTokenizer.t5(directory / "tokenizer_2")
        return cls(
            load_clip(directory, clip_tokenizer.eos_token_id, device, dtype),
            clip_tokenizer,
            load_t5(directory, device, dtype, leaves_t5_on_host),
            t5_tokenizer,
        )

    @torch.inference_mode()
    def encode(
        self, prompts: Sequence[str], max_sequence_length: int | None = None
    ) -> TextFeatures:
        """Encode prompts, each padded or cut to `max_sequence_length` T5 tokens.

        None means `max_tokens`, all that the preset reads. CLIP's own length is fixed.

        Raises ValueError for a length outside 1 … `max_tokens`.
        """
        length = self.max_tokens if max_sequence_length is None else max_sequence_length
        if not 1 <= length <= self.max_tokens:
            raise ValueError(f"max_sequence_length {length} is not in 1 … {self.max_tokens}")
        clip_length = min(self._clip_tokenizer.max_tokens, self.clip.max_tokens)
        for_clip = self._clip_tokenizer.encode(prompts, clip_length)
        for_t5 = self._t5_tokenizer.encode(prompts, length)
        return TextFeatures(
            text=self.t5(for_t5.ids),
            pooled=self.clip(for_clip.ids),
            num_tokens=tuple(min(count, length) for count in for_t5.num_tokens),
            truncated=tuple(count > length for count in for_t5.num_tokens),
        )
