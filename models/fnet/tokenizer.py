"""Text to token ids, packed as FNet was trained: [CLS] text [SEP], or [CLS] a [SEP] b [SEP].

The vocabulary is the preset's own, in KerasHub's or transformers' form; the packing is that of
KerasHub's `FNetTextClassifierPreprocessor` (keras_hub/src/models/f_net, 0.32.0) and, for what is
short enough, of transformers' `FNetTokenizer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from models.errors import InputError, PresetFileError, TextTooLongError
from models.fnet import packing
from models.fnet.formats import transformers_vocabulary
from models.fnet.packing import PackedText, SpecialIds, Truncation
from models.fnet.vocabulary import END, MASK, PADDING, START, SentencePieceVocabulary, Vocabulary
from models.presets.format_detection import Format, detect

PADDED_LENGTHS = (32, 64, 128, 256, 512)  # few, so that texts of like length share a batch

TruncationSide = Literal["left", "right"]  # where the tokens that are too many are cut off


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The ids of one text, padded; FNet has no padding mask, so padding is part of the input."""

    token_ids: tuple[int, ...]
    num_tokens: int  # without the padding, with [CLS] and [SEP]
    is_truncated: bool = False


class Tokenizer:
    """Knows the vocabulary and which lengths texts are padded to."""

    num_special_tokens = 2  # of each text: [CLS] and [SEP]

    def __init__(self, vocabulary: Vocabulary, max_tokens: int) -> None:
        """Raise PresetFileError for a vocabulary without FNet's special pieces."""
        ids = {piece: vocabulary.id_of(piece) for piece in (START, END, PADDING, MASK)}
        found = {piece: token_id for piece, token_id in ids.items() if token_id is not None}
        if len(found) < len(ids):
            missing = ", ".join(piece for piece in ids if piece not in found)
            raise PresetFileError(f"the vocabulary lacks the pieces {missing}")
        self._special = SpecialIds(found[START], found[END], found[PADDING])
        self.vocabulary = vocabulary
        self.mask_id = found[MASK]
        self.max_tokens = max_tokens

    @classmethod
    def from_directory(cls, directory: Path, vocabulary_size: int, max_tokens: int) -> Self:
        """Read a preset's vocabulary, of at most as many pieces as its backbone embeds.

        Raises PresetFileError for a missing or malformed file, or one without FNet's pieces.
        """
        vocabulary = (
            transformers_vocabulary.read_vocabulary(directory)
            if detect(directory).format is Format.TRANSFORMERS
            else SentencePieceVocabulary.from_preset(directory)
        )
        if vocabulary.size > vocabulary_size:
            raise PresetFileError(
                f"the vocabulary in {directory} has {vocabulary.size} pieces, "
                f"the backbone only {vocabulary_size}"
            )
        try:
            return cls(vocabulary, max_tokens)
        except PresetFileError as error:
            raise PresetFileError(f"{directory}: {error}") from error

    @property
    def vocabulary_size(self) -> int:
        return self.vocabulary.size

    def __call__(
        self, text: str | Sequence[int], truncation: TruncationSide | None = None
    ) -> TokenizedText:
        """Tokenize and pad to the smallest of the padded lengths that holds the text.

        A text may come as its token ids, without [CLS] and [SEP]. `truncation` None cuts nothing.

        Raises TextTooLongError for more than `max_tokens`, InputError for an unpaired surrogate
        and for an id outside the vocabulary.
        """
        ids = self.vocabulary.encode(text) if isinstance(text, str) else self._checked(text)
        excess = len(ids) + self.num_special_tokens - self.max_tokens
        if truncation is None or excess <= 0:
            return self._pad(ids)
        cut = ids[:-excess] if truncation == "right" else ids[excess:]
        return replace(self._pad(cut), is_truncated=True)

    def masked(self, text: str) -> TokenizedText:
        """Tokenize and pad a text in which each "[MASK]" is the mask.

        Raises TextTooLongError for more than `max_tokens`, InputError for an unpaired surrogate.
        """
        return self._pad(self.vocabulary.encode_masked(text))

    def pack(
        self, segments: Sequence[str], length: int, truncation: Truncation = "round_robin"
    ) -> PackedText:
        """Tokenize the segments of one text, and cut and pad them to `length` together.

        Raises InputError for an unpaired surrogate.
        """
        ids = [self.vocabulary.encode(segment) for segment in segments]
        return packing.pack(ids, self._special, length, truncation)

    def _checked(self, ids: Sequence[int]) -> Sequence[int]:
        """Refuse what a device would look up outside of the embedding, and fail on for good."""
        wrong = next((each for each in ids if not 0 <= each < self.vocabulary_size), None)
        if wrong is None:
            return ids
        raise InputError(f"token id {wrong}; 0 to {self.vocabulary_size - 1} are allowed")

    def _pad(self, ids: Sequence[int]) -> TokenizedText:
        num_tokens = len(ids) + self.num_special_tokens
        if num_tokens > self.max_tokens:
            raise TextTooLongError(
                f"the text has {num_tokens} tokens; at most {self.max_tokens} are allowed"
            )
        fitting = [length for length in PADDED_LENGTHS if num_tokens <= length <= self.max_tokens]
        packed = packing.pack([ids], self._special, min(fitting, default=self.max_tokens))
        return TokenizedText(packed.token_ids, packed.num_tokens)
