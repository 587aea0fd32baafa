"""The vocabularies of `transformers` directories, each read as its writer reads it.

`tokenizer.json` is all there is to know, and what transformers itself uses when it is there.
`spiece.model` alone is read by the rules of the tokenizer it was published for, `FNetTokenizer` of
transformers 4 (models/fnet/tokenization_fnet.py, 4.57.6). In both, a special piece in a text is
that piece. transformers 5.23 reads `spiece.model` without [CLS], [SEP] and the space before the
first word, which is not followed here.
"""

import re
import unicodedata
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer as TokenizersFile

from models.checkpoints import preset_files
from models.errors import PresetFileError
from models.fnet.vocabulary import (
    END,
    MASK,
    PADDING,
    START,
    Vocabulary,
    find_piece,
    read_processor,
    require_unicode,
)

SENTENCEPIECE_FILE = "spiece.model"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
UNKNOWN = "<unk>"
SPACE = "▁"  # how SentencePiece spells one
_SPECIAL_PIECES = "|".join(map(re.escape, (MASK, START, END, PADDING, UNKNOWN)))
# [MASK] takes the space before it along
_SPECIAL = re.compile(rf"(?:\s+(?={re.escape(MASK)}))?({_SPECIAL_PIECES})")
_NUMBER_AND_COMMA = re.compile(r".*\d,", re.DOTALL)


def read_vocabulary(directory: Path) -> Vocabulary:
    """Read `tokenizer.json`, or else `spiece.model`.

    Raises PresetFileError for a missing or malformed file.
    """
    file = directory / preset_files.TOKENIZER_FILE
    if file.is_file():
        return TokenizersVocabulary(file)
    return SpieceVocabulary(directory)


class TokenizersVocabulary:
    """A `tokenizer.json` of the tokenizers library, which says everything itself."""

    def __init__(self, file: Path) -> None:
        try:
            self._tokenizer = TokenizersFile.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise PresetFileError(f"{file} is not a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        require_unicode(text)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_masked(self, text: str) -> list[int]:
        return self.encode(text)

    def id_of(self, piece: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(piece)
        return found

    def decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))


class _TokenizerConfig(BaseModel):
    """What `tokenizer_config.json` says of the text before SentencePiece sees it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    do_lower_case: bool = False
    remove_space: bool = True
    keep_accents: bool = True


class SpieceVocabulary:
    """A `spiece.model` with the preprocessing that `tokenizer_config.json` asks for."""

    def __init__(self, directory: Path) -> None:
        self._processor = read_processor(directory / SENTENCEPIECE_FILE)
        has_config = (directory / TOKENIZER_CONFIG_FILE).is_file()
        self._config = (
            preset_files.read_model(directory, TOKENIZER_CONFIG_FILE, _TokenizerConfig)
            if has_config
            else _TokenizerConfig()
        )

    @property
    def size(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> list[int]:
        require_unicode(text)
        if self._config.do_lower_case:
            text = _lower(text)
        pieces: list[str] = []
        for index, part in enumerate(_SPECIAL.split(text)):
            pieces += self._pieces(part) if index % 2 == 0 else [part]
        return [int(self._processor.piece_to_id(piece)) for piece in pieces]

    def encode_masked(self, text: str) -> list[int]:
        return self.encode(text)

    def id_of(self, piece: str) -> int | None:
        return find_piece(self._processor, piece)

    def decode(self, token_ids: list[int]) -> str:
        return str(self._processor.decode(token_ids))

    def _pieces(self, text: str) -> list[str]:
        pieces = self._processor.encode(self._prepared(text), out_type=str)
        return [part for piece in pieces for part in self._without_comma(piece)]

    def _prepared(self, text: str) -> str:
        if self._config.remove_space:
            text = " ".join(text.split())
        text = text.replace("``", '"').replace("''", '"')
        if not self._config.keep_accents:
            decomposed = unicodedata.normalize("NFKD", text)
            text = "".join(char for char in decomposed if not unicodedata.combining(char))
        return text.lower() if self._config.do_lower_case else text

    def _without_comma(self, piece: str) -> list[str]:
        """Take "3," apart: a comma after a digit is a piece of its own."""
        if not _NUMBER_AND_COMMA.fullmatch(piece):
            return [piece]
        number: list[str] = self._processor.encode(piece[:-1].replace(SPACE, ""), out_type=str)
        if not piece.startswith(SPACE) and number[0].startswith(SPACE):
            number[:1] = [number[0][1:]] if len(number[0]) > 1 else []
        return [*number, ","]


def _lower(text: str) -> str:
    """Lower each character by itself, as a Σ at a word's end shows, but not the special pieces."""
    parts = re.split(f"({_SPECIAL_PIECES})", text)
    return "".join(
        "".join(map(str.lower, part)) if index % 2 == 0 else part
        for index, part in enumerate(parts)
    )
