"""Text in, one vector of unit length out: tokenizer and backbone of a preset, and pooling.

The embedding is the mean of `sequence_output` over the real tokens, [CLS] and [SEP] included and
padding not, divided by its length. FNet itself has no padding mask: the same text gives the same
vector only at the same padded length, which `Tokenizer` fixes by the text alone: the smallest of
32, 64, 128, 256 and 512. The published FNets were trained on 512 tokens throughout; for a short
text this takes a sixteenth of the work and gives another vector than padding to 512 would.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import WeightsFormat
from models.checkpoints import preset_files
from models.checkpoints.preset_files import KerasObject
from models.fnet.backbone import FNetBackbone
from models.fnet.tokenizer import TokenizedText, Tokenizer
from models.layers.dtypes import dtype_policy
from models.presets.handles import Part, fetch


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

    @property
    def embedding_width(self) -> int:
        return self.backbone.hidden_dim

    @property
    def max_tokens(self) -> int:
        return self.tokenizer.max_tokens

    @property
    def features_per_row(self) -> int:
        """Count the features of the longest text between two layers: its tokens times the width."""
        return self.max_tokens * self.embedding_width

    def tokenize(self, text: str) -> TokenizedText:
        """Tokenize one text and pad it.

        Raises TextTooLongError for more tokens than the preset takes, InputError for an unpaired
        surrogate.
        """
        return self.tokenizer(text)

    @torch.inference_mode()
    def embed(self, batch: Sequence[TokenizedText]) -> Tensor:
        """Embed texts of one padded length, [B, D] float32, each of unit length.

        Raises ValueError for texts of several padded lengths.
        """
        lengths = {len(text.token_ids) for text in batch}
        if len(lengths) != 1:
            raise ValueError(f"texts are padded to {sorted(lengths)}; one length is allowed")
        return embed(self.backbone, batch)


def embed(backbone: FNetBackbone, batch: Sequence[TokenizedText]) -> Tensor:
    """Embed as `TextEmbedder` does, with gradients."""
    device = backbone.pooled_dense.weight.device
    token_ids = torch.tensor([text.token_ids for text in batch], device=device)
    num_tokens = torch.tensor([text.num_tokens for text in batch], device=device)
    outputs = backbone(token_ids=token_ids, segment_ids=torch.zeros_like(token_ids))
    positions = torch.arange(token_ids.shape[1], device=device)
    is_real = (positions < num_tokens[:, None]).float()  # [B, L]
    total = torch.einsum("BLD,BL->BD", outputs["sequence_output"].float(), is_real)
    return F.normalize(total / num_tokens[:, None], dim=-1)


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
