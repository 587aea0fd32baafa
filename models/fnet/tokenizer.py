"""Text to token ids, packed as FNet was trained: [CLS] text [SEP].

The SentencePiece vocabulary of a preset, as KerasHub's `FNetTokenizer`
(keras_hub/src/models/f_net/f_net_tokenizer.py, 71453d0) uses it.
"""

from dataclasses import dataclass
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from models.errors import PresetFileError, TextTooLongError

START, END, PADDING = "[CLS]", "[SEP]", "<pad>"
PADDED_LENGTHS = (32, 64, 128, 256, 512)  # few, so that texts of like length share a batch


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The ids of one text, padded; FNet has no padding mask, so padding is part of the input."""

    token_ids: tuple[int, ...]
    num_tokens: int  # without the padding, with [CLS] and [SEP]


class Tokenizer:
    """Knows the vocabulary and which lengths texts are padded to."""

    def __init__(self, vocabulary: Path, max_tokens: int) -> None:
        """Read a SentencePiece file.

        Raises PresetFileError for a missing or malformed file, or one without FNet's pieces.
        """
        if not vocabulary.is_file():
            raise PresetFileError(f"{vocabulary} is missing")
        try:
            self._processor = SentencePieceProcessor(model_file=str(vocabulary))
        except (OSError, RuntimeError) as error:
            raise PresetFileError(f"{vocabulary} is not a SentencePiece file: {error}") from error
        missing = [piece for piece in (START, END, PADDING) if not self._has(piece)]
        if missing:
            raise PresetFileError(f"{vocabulary} lacks the pieces {', '.join(missing)}")
        self.max_tokens = max_tokens

    @property
    def vocabulary_size(self) -> int:
        size: int = self._processor.get_piece_size()
        return size

    def __call__(self, text: str) -> TokenizedText:
        """Tokenize and pad to the smallest of the padded lengths that holds the text.

        Raises TextTooLongError for more than `max_tokens`.
        """
        ids = [self._id(START), *self._processor.encode(text), self._id(END)]
        if len(ids) > self.max_tokens:
            raise TextTooLongError(
                f"the text has {len(ids)} tokens; at most {self.max_tokens} are allowed"
            )
        fitting = [length for length in PADDED_LENGTHS if len(ids) <= length <= self.max_tokens]
        padded_length = min(fitting, default=self.max_tokens)
        padding = [self._id(PADDING)] * (padded_length - len(ids))
        return TokenizedText(token_ids=(*ids, *padding), num_tokens=len(ids))

    def _id(self, piece: str) -> int:
        token_id: int = self._processor.piece_to_id(piece)
        return token_id

    def _has(self, piece: str) -> bool:
        piece_of_id: str = self._processor.id_to_piece(self._id(piece))
        return piece_of_id == piece
