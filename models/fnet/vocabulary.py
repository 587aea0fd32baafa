"""Text to ids and back: the vocabularies that FNet presets come with.

KerasHub's is SentencePiece as it is (keras_hub/src/tokenizers/sentence_piece_tokenizer.py,
0.32.0); those of transformers are in `transformers_vocabulary`. Knows nothing about how texts are
packed and padded.
"""

from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict
from sentencepiece import SentencePieceProcessor

from models.checkpoints import preset_files
from models.errors import InputError, PresetFileError
from models.layers.arguments import Size

START, END, PADDING, MASK = "[CLS]", "[SEP]", "<pad>", "[MASK]"


class Vocabulary(Protocol):
    """The pieces of texts, by id."""

    @property
    def size(self) -> int:
        """Count the ids."""

    def encode(self, text: str) -> list[int]:
        """Give the ids of a text, without [CLS] and [SEP].

        Raises InputError for text that is not Unicode: with an unpaired surrogate.
        """

    def encode_masked(self, text: str) -> list[int]:
        """Give the ids of a text in which each "[MASK]" is the mask.

        Raises InputError as `encode` does.
        """

    def id_of(self, piece: str) -> int | None:
        """Find a piece; None where there is none."""

    def decode(self, token_ids: list[int]) -> str:
        """Spell ids as text."""


class SentencePieceVocabulary:
    """A SentencePiece file, used as KerasHub's `FNetTokenizer` uses it."""

    def __init__(
        self, file: Path, add_bos: bool = False, add_eos: bool = False, length: int | None = None
    ) -> None:
        """Read a SentencePiece file; each text is cut or padded to `length` where it is given.

        Raises PresetFileError for a missing or malformed file.
        """
        self._processor = read_processor(file)
        self._add_bos, self._add_eos, self._length = add_bos, add_eos, length

    @classmethod
    def from_preset(cls, directory: Path) -> "SentencePieceVocabulary":
        """Read `tokenizer.json` and the file that belongs to it.

        Raises PresetFileError for a missing or malformed file.
        """
        file = directory / preset_files.VOCABULARY_FILE
        if not file.is_file():
            raise PresetFileError(f"{file} is missing")
        config = preset_files.read_config(directory, preset_files.TOKENIZER_FILE, _TokenizerConfig)
        return cls(file, config.add_bos, config.add_eos, config.sequence_length)

    @property
    def size(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> list[int]:
        require_unicode(text)
        ids: list[int] = self._processor.encode(text, add_bos=self._add_bos, add_eos=self._add_eos)
        if self._length is None:
            return ids
        padding = self._processor.piece_to_id(PADDING)
        return ids[: self._length] + [padding] * (self._length - len(ids))

    def encode_masked(self, text: str) -> list[int]:
        """Encode what stands between the masks piece by piece.

        In KerasHub a user places the mask's id: whether SentencePiece takes "[MASK]" in a text for
        it depends on how the vocabulary was trained.
        """
        before, *after = [self.encode(part) for part in text.split(MASK)]
        mask = self._processor.piece_to_id(MASK)
        return [*before, *(token_id for part in after for token_id in (mask, *part))]

    def id_of(self, piece: str) -> int | None:
        return find_piece(self._processor, piece)

    def decode(self, token_ids: list[int]) -> str:
        return str(self._processor.decode(token_ids))


class _TokenizerConfig(BaseModel):
    """The configuration of KerasHub's `FNetTokenizer`; its vocabulary lies beside it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    proto: None = None
    sequence_length: Size | None = None
    add_bos: bool = False
    add_eos: bool = False


def read_processor(file: Path) -> SentencePieceProcessor:
    """Open a SentencePiece file.

    Raises PresetFileError for a missing or malformed file.
    """
    if not file.is_file():
        raise PresetFileError(f"{file} is missing")
    try:
        return SentencePieceProcessor(model_proto=file.read_bytes())
    except (OSError, RuntimeError) as error:
        raise PresetFileError(f"{file} is not a SentencePiece file: {error}") from error


def find_piece(processor: SentencePieceProcessor, piece: str) -> int | None:
    """Find a piece in a SentencePiece file, which answers with "unknown" for one it has not."""
    token_id = int(processor.piece_to_id(piece))
    return token_id if processor.id_to_piece(token_id) == piece else None


def require_unicode(text: str) -> None:
    """Refuse half a surrogate pair, which is no character and which no tokenizer takes.

    Raises InputError.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start} of the text is {text[error.start]!r}, half a surrogate "
            "pair; only whole Unicode characters are allowed"
        ) from error
