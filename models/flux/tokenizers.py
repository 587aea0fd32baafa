"""The tokenizers of CLIP and T5: texts in, token ids of one length out.

`tokenizer.json` is read by the library that wrote it. What older checkpoints have in its place
(CLIP's `vocab.json` and `merges.txt`, T5's `spiece.model`) transformers turns into the same; its
import takes a second, which no one waits for who has `tokenizer.json`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from tokenizers import Tokenizer
from torch import Tensor

from models.checkpoints import preset_files
from models.errors import PresetFileError

CONFIG_FILE = "tokenizer_config.json"


def _content(token: object) -> object:
    """Older files say more of a token than its text."""
    return token.get("content") if isinstance(token, dict) else token


_Token = Annotated[str, BeforeValidator(_content)]


class _Config(BaseModel):
    """`tokenizer_config.json`, as far as `tokenizer.json` does not say it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    class_name: ClassVar[str]  # of transformers
    pad_token: _Token
    eos_token: _Token
    model_max_length: Annotated[int, Field(ge=1)] | None = None  # some state no limit


class _ClipConfig(_Config):
    class_name = "CLIPTokenizer"
    pad_token: _Token = "<|endoftext|>"
    eos_token: _Token = "<|endoftext|>"


class _T5Config(_Config):
    class_name = "T5Tokenizer"
    pad_token: _Token = "<pad>"
    eos_token: _Token = "</s>"


@dataclass(frozen=True, slots=True)
class TokenIds:
    """ids [B, T] int64; num_tokens of each whole text, the end token included."""

    ids: Tensor
    num_tokens: tuple[int, ...]


class TextTokenizer:
    """Pads and cuts by itself: both kinds end each text, cut or not, with one end token."""

    def __init__(
        self, tokenizer: Tokenizer, pad_token_id: int, eos_token_id: int, max_tokens: int
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._pad_token_id = pad_token_id
        self.eos_token_id = eos_token_id
        self.max_tokens = max_tokens

    @classmethod
    def clip(cls, directory: Path) -> Self:
        """Raises PresetFileError for a missing or malformed file."""
        return cls._load(directory, _ClipConfig)

    @classmethod
    def t5(cls, directory: Path) -> Self:
        """Raises PresetFileError for a missing or malformed file."""
        return cls._load(directory, _T5Config)

    @classmethod
    def _load(cls, directory: Path, kind: type[_Config]) -> Self:
        file = directory / preset_files.TOKENIZER_FILE
        if not file.is_file():
            return cls._converted(directory, kind)
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises nothing narrower
            raise PresetFileError(f"{file} cannot be read: {error}") from error
        config = preset_files.read_model(directory, CONFIG_FILE, kind)
        pad, end = (tokenizer.token_to_id(each) for each in (config.pad_token, config.eos_token))
        if pad is None or end is None:
            raise PresetFileError(
                f"{file} lacks {config.pad_token!r} or {config.eos_token!r}, pad_token and "
                f"eos_token of {CONFIG_FILE}"
            )
        return cls(tokenizer, pad, end, config.model_max_length or sys.maxsize)

    @classmethod
    def _converted(cls, directory: Path, kind: type[_Config]) -> Self:
        import transformers

        with preset_files.reading(directory) as folder:
            tokenizer = getattr(transformers, kind.class_name)
            read = tokenizer.from_pretrained(folder, local_files_only=True)
        ids = read.pad_token_id, read.eos_token_id
        return cls(read.backend_tokenizer, *ids, read.model_max_length)

    def encode(self, texts: Sequence[str], num_tokens: int) -> TokenIds:
        """Pad or cut each text to `num_tokens`."""
        whole = [self._tokenizer.encode(text).ids for text in texts]
        rows = [
            ids + [self._pad_token_id] * (num_tokens - len(ids))
            if len(ids) <= num_tokens
            else ids[: num_tokens - 1] + ids[-1:]
            for ids in whole
        ]
        return TokenIds(torch.tensor(rows), tuple(map(len, whole)))
