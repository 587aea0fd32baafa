"""Texts in, one logit per class out: the task of KerasHub's `FNetTextClassifier`.

Source: keras_hub/src/models/f_net/f_net_text_classifier.py and its preprocessor (0.32.0): one
dense layer on `pooled_output`; every text is cut and padded to one length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models.checkpoints import preset_files
from models.errors import PresetFileError
from models.fnet.backbone import FNetBackbone
from models.fnet.packing import PackedText, Truncation
from models.fnet.tokenizer import Tokenizer
from models.keras.task_heads import keras_dense, keras_head, load_head, require_task
from models.layers.arguments import Size
from models.presets.handles import Part, fetch

KERAS_TASK = "FNetTextClassifier"


class Packing(BaseModel):
    """The `config` of `preprocessor.json`, with KerasHub's defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sequence_length: Size = 512
    truncate: Truncation = "round_robin"


class TextClassifier:
    """Everything that one FNet preset needs to score texts, on one device."""

    def __init__(
        self, backbone: FNetBackbone, head: nn.Sequential, tokenizer: Tokenizer, packing: Packing
    ) -> None:
        """Compose.

        Raises ValueError for texts padded to more tokens than the backbone takes.
        """
        if packing.sequence_length > backbone.max_sequence_length:
            raise ValueError(
                f"sequence_length is {packing.sequence_length}; "
                f"at most {backbone.max_sequence_length} are allowed"
            )
        self.backbone = backbone
        self.head = head
        self.tokenizer = tokenizer
        self.packing = packing

    @classmethod
    def from_preset(
        cls, preset: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Load a KerasHub preset with a text classifier; `dtype` None means float32.

        Raises UnknownPresetError for no such preset, DownloadError for one that cannot be fetched,
        PresetFileError for a missing or malformed file and for a preset without a classifier,
        WeightsError for weights that do not fit, PresetError for a preset of another family.
        """
        directory = fetch(preset, Part.PIPELINE)
        with torch.device(device):
            backbone = FNetBackbone.from_preset(directory, dtype=dtype, trainable=False)
        require_task(directory, KERAS_TASK)
        task = preset_files.read_config(directory, preset_files.TASK_FILE, _TaskConfig)
        head = load_head(
            lambda: nn.Sequential(nn.Linear(backbone.hidden_dim, task.num_classes)),
            keras_head(directory, keras_dense("0", "layers/dense")),
            backbone.pooled_dense.weight,
        )
        tokenizer = Tokenizer.from_directory(
            directory, backbone.vocabulary_size, backbone.max_sequence_length
        )
        try:
            return cls(backbone, head, tokenizer, _packing(task, directory))
        except ValueError as error:
            raise PresetFileError(f"{directory} does not fit together: {error}") from error

    def tokenize(self, *segments: str) -> PackedText:
        """Pack a text, or two that belong together, as the preset's own preprocessing does.

        Raises InputError for an unpaired surrogate, ValueError for more segments than the backbone
        knows.
        """
        if not 1 <= len(segments) <= self.backbone.num_segments:
            raise ValueError(
                f"{len(segments)} segments; 1 to {self.backbone.num_segments} are allowed"
            )
        return self.tokenizer.pack(segments, self.packing.sequence_length, self.packing.truncate)

    @torch.inference_mode()
    def logits(self, batch: Sequence[PackedText]) -> Tensor:
        """Score packed texts, [B, K] float32: before the task's activation, if it has one."""
        device = self.backbone.pooled_dense.weight.device
        token_ids = torch.tensor([text.token_ids for text in batch], device=device)
        segment_ids = torch.tensor([text.segment_ids for text in batch], device=device)
        outputs = self.backbone(token_ids=token_ids, segment_ids=segment_ids)
        logits: Tensor = self.head(outputs["pooled_output"]).float()
        return logits


class _Preprocessor(BaseModel):
    config: Packing


class _TaskConfig(BaseModel):
    """The `config` of `task.json`, without the nested backbone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    num_classes: Size
    preprocessor: _Preprocessor | None = None


def _packing(task: _TaskConfig, directory: Path) -> Packing:
    """Prefer what the task itself holds, as KerasHub does."""
    if task.preprocessor is not None:
        return task.preprocessor.config
    if (directory / preset_files.PREPROCESSOR_FILE).is_file():
        return preset_files.read_config(directory, preset_files.PREPROCESSOR_FILE, Packing)
    return Packing()
