"""Text in, one vector out: tokenizer and backbone of a preset, and pooling.

The embedding is the mean of `sequence_output` over the real tokens, [CLS] and [SEP] included and
padding not, or the first token, [CLS]: the `mean` and `cls` of sentence-transformers. It is divided
by its length unless that is refused. FNet itself has no padding mask: the same text gives the same
vector only at the same padded length, which `Tokenizer` fixes by the text alone: the smallest of
32, 64, 128, 256 and 512. The published FNets were trained on 512 tokens throughout; for a short
text this takes a sixteenth of the work and gives another vector than padding to 512 would.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import WeightsFormat
from models.checkpoints import preset_files
from models.checkpoints.preset_files import KerasObject
from models.execution.apply import Subject, apply
from models.execution.execution import Execution
from models.fnet.backbone import FNetBackbone
from models.fnet.tokenizer import TokenizedText, Tokenizer, TruncationSide
from models.layers.dtypes import dtype_policy
from models.presets.handles import Part, fetch

Pooling = Literal["mean", "cls"]


class TextEmbedder:
    """Everything that one FNet preset needs to embed texts, on one device."""

    def __init__(self, backbone: FNetBackbone, tokenizer: Tokenizer) -> None:
        self.backbone = backbone
        self.tokenizer = tokenizer

    @classmethod
    def from_preset(
        cls, preset: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Load a preset of KerasHub's or transformers' form; `dtype` None means float32.

        Raises UnknownPresetError for no such preset, DownloadError for one that cannot be fetched,
        PresetFileError for a missing or malformed file, WeightsError for weights that do not fit,
        PresetError for a preset of another family.
        """
        directory = fetch(preset, Part.PIPELINE)
        with torch.device(device):
            backbone = FNetBackbone.from_preset(directory, dtype=dtype, trainable=False)
        tokenizer = Tokenizer.from_directory(
            directory, backbone.vocabulary_size, backbone.max_sequence_length
        )
        return cls(backbone, tokenizer)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """What holds the parameters."""
        return (self.backbone,)

    def to(self, device: str) -> None:
        """Move to another device, and compute there."""
        for module in self.modules:
            module.to(device)

    def pack(self, dtype: torch.dtype) -> None:
        """Lay the weights out for the CPU's products in this dtype: see the backbone's."""
        self.backbone.pack(dtype)

    def execute(self, execution: Execution) -> None:
        """Run by these levers from now on; those that cannot be had are logged and left out."""
        device = self.backbone.pooled_dense.weight.device
        apply(Subject(self.backbone, "forward", self._example, device), execution)

    @torch.inference_mode()
    def _example(self, num_rows: int) -> Tensor:
        """Encode texts of zeros, [B, L, D]."""
        device = self.backbone.pooled_dense.weight.device
        ids = torch.zeros(num_rows, self.max_tokens, dtype=torch.long, device=device)
        output: Tensor = self.backbone(token_ids=ids, segment_ids=ids)["sequence_output"]
        return output

    @property
    def embedding_width(self) -> int:
        return self.backbone.hidden_dim

    @property
    def max_tokens(self) -> int:
        return self.tokenizer.max_tokens

    @property
    def num_special_tokens(self) -> int:
        """Count the tokens that each text is given besides its own."""
        return self.tokenizer.num_special_tokens

    @property
    def vocabulary_size(self) -> int:
        return self.tokenizer.vocabulary_size

    @property
    def features_per_row(self) -> int:
        """Count the features of the longest text between two layers: its tokens times the width."""
        return self.max_tokens * self.embedding_width

    def tokenize(
        self, text: str | Sequence[int], truncation: TruncationSide | None = None
    ) -> TokenizedText:
        """Tokenize one text, or take its token ids without [CLS] and [SEP], and pad it.

        Raises TextTooLongError for more tokens than the preset takes unless `truncation` says
        where to cut, InputError for an unpaired surrogate and for an id outside the vocabulary.
        """
        return self.tokenizer(text, truncation)

    def embed(
        self, batch: Sequence[TokenizedText], pooling: Pooling = "mean", normalizes: bool = True
    ) -> Tensor:
        """Embed texts of one padded length, [B, D] float32, each of unit length if `normalizes`.

        Raises ValueError for texts of several padded lengths.
        """
        return self.pool(self.encode(batch), batch, pooling, normalizes)

    @torch.inference_mode()
    def encode(self, batch: Sequence[TokenizedText]) -> Tensor:
        """Run texts of one padded length through the backbone, [B, L, D]: what `pool` takes.

        Raises ValueError for texts of several padded lengths.
        """
        lengths = {len(text.token_ids) for text in batch}
        if len(lengths) != 1:
            raise ValueError(f"texts are padded to {sorted(lengths)}; one length is allowed")
        return encode(self.backbone, batch)

    @torch.inference_mode()
    def pool(
        self,
        sequence_output: Tensor,
        batch: Sequence[TokenizedText],
        pooling: Pooling = "mean",
        normalizes: bool = True,
    ) -> Tensor:
        """Make one vector of each text's tokens: [B, L, D] to [B, D] float32."""
        return pool(sequence_output, batch, pooling, normalizes)


def encode(backbone: FNetBackbone, batch: Sequence[TokenizedText]) -> Tensor:
    """Encode as `TextEmbedder` does, with gradients: texts to [B, L, D]."""
    device = backbone.pooled_dense.weight.device
    token_ids = torch.tensor([text.token_ids for text in batch], device=device)
    outputs = backbone(token_ids=token_ids, segment_ids=torch.zeros_like(token_ids))
    sequence_output: Tensor = outputs["sequence_output"]
    return sequence_output


def pool(
    sequence_output: Tensor,
    batch: Sequence[TokenizedText],
    pooling: Pooling = "mean",
    normalizes: bool = True,
) -> Tensor:
    """Pool as `TextEmbedder` does, with gradients: [B, L, D] to [B, D] float32."""
    if pooling == "cls":
        pooled = sequence_output[:, 0].float()
    else:
        device = sequence_output.device
        num_tokens = torch.tensor([text.num_tokens for text in batch], device=device)
        positions = torch.arange(sequence_output.shape[1], device=device)
        is_real = (positions < num_tokens[:, None]).float()  # [B, L]
        total = torch.einsum("BLD,BL->BD", sequence_output.float(), is_real)
        pooled = total / num_tokens[:, None]
    return F.normalize(pooled, dim=-1) if normalizes else pooled


def save_to_preset(
    backbone: FNetBackbone,
    vocabulary: Path,
    preset_dir: str | Path,
    weights_format: WeightsFormat = "h5",
) -> None:
    """Write everything that `TextEmbedder.from_preset` reads, in KerasHub's form.

    `weights_format` is that of `Backbone.save_to_preset`.
    """
    directory = Path(preset_dir)
    backbone.save_to_preset(directory, weights_format=weights_format)
    target = directory / preset_files.VOCABULARY_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(vocabulary, target)
    preset_files.write_object(directory, preset_files.TOKENIZER_FILE, _tokenizer_object())


def _tokenizer_object() -> KerasObject:
    return KerasObject(
        module="keras_hub.src.models.f_net.f_net_tokenizer",
        class_name="FNetTokenizer",
        config={
            "name": "f_net_tokenizer",
            "trainable": True,
            "dtype": dtype_policy("int32"),
            "config_file": preset_files.TOKENIZER_FILE,
            "proto": None,
            "sequence_length": None,
            "add_bos": False,
            "add_eos": False,
        },
        registered_name="keras_hub>FNetTokenizer",
    )
