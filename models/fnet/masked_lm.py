"""What stands behind each [MASK]: FNet with the head that it was pretrained with.

Of KerasHub's `FNetMaskedLM` (keras_hub/src/layers/modeling/masked_lm_head.py, 0.32.0) and of
transformers' `FNetForMaskedLM` and `FNetForPreTraining` (transformers/models/fnet, 5.23.0), whose
heads differ in their GELU and epsilon. Shows that a checkpoint is understood: its candidates are
words that fit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoints import preset_files, safetensors_files
from models.checkpoints.weights import Recipe
from models.errors import InputError, PresetFileError
from models.fnet.backbone import LAYER_NORM_EPSILON, FNetBackbone
from models.fnet.formats import transformers_format
from models.fnet.tokenizer import Tokenizer
from models.fnet.vocabulary import MASK
from models.keras.task_heads import StoredHead, keras_dense, keras_head, load_head, require_task
from models.presets.format_detection import Format, detect
from models.presets.handles import Part, fetch

KERAS_TASK = "FNetMaskedLM"
KERAS_PATH = "layers/masked_lm_head"
TRANSFORMERS_PREFIX = "cls.predictions."
TRANSFORMERS_BIASES = ("cls.predictions.bias", "cls.predictions.decoder.bias")  # one, two names
TRANSFORMERS_SHARED = (*TRANSFORMERS_BIASES, "cls.predictions.decoder.weight")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may stand behind a mask."""

    token_id: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Form:
    """Where KerasHub's and transformers' heads differ."""

    gelu: Literal["none", "tanh"]  # exact, or by its approximation
    epsilon: float


KERAS_FORM = Form("none", 1e-5)
TRANSFORMERS_FORM = Form("tanh", LAYER_NORM_EPSILON)


class MaskedLMHead(nn.Module):
    """From a token's features to a score for every piece of the vocabulary."""

    def __init__(self, width: int, vocabulary_size: int, form: Form) -> None:
        super().__init__()
        self.form = form
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, eps=form.epsilon)
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))

    def forward(self, features: Tensor, token_embedding: Tensor) -> Tensor:
        """Features [B, M, D] of M tokens a row, and the embeddings [K, D] of all, to [B, M, K]."""
        inner = F.gelu(self.dense(features), approximate=self.form.gelu)
        logits: Tensor = self.layer_norm(inner) @ token_embedding.T + self.bias
        return logits


class MaskedLM:
    """A backbone with its masked-LM head and its tokenizer, on one device."""

    def __init__(self, backbone: FNetBackbone, head: MaskedLMHead, tokenizer: Tokenizer) -> None:
        self.backbone = backbone
        self.head = head
        self.tokenizer = tokenizer

    @classmethod
    def from_preset(
        cls, preset: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Load a preset with a masked-LM head; `dtype` None means float32.

        Raises UnknownPresetError for no such preset, DownloadError for one that cannot be fetched,
        PresetFileError for a missing or malformed file and for a preset without such a head,
        WeightsError for weights that do not fit, PresetError for a preset of another family.
        """
        directory = fetch(preset, Part.PIPELINE)
        with torch.device(device):
            backbone = FNetBackbone.from_preset(directory, dtype=dtype, trainable=False)
        if detect(directory).format is Format.TRANSFORMERS:
            stored, form = _read_transformers(directory), TRANSFORMERS_FORM
        else:
            stored, form = _read_keras(directory), KERAS_FORM
        head = load_head(
            lambda: MaskedLMHead(backbone.hidden_dim, backbone.vocabulary_size, form),
            stored,
            backbone.pooled_dense.weight,
        )
        tokenizer = Tokenizer.from_directory(
            directory, backbone.vocabulary_size, backbone.max_sequence_length
        )
        return cls(backbone, head, tokenizer)

    @torch.inference_mode()
    def logits(self, token_ids: Tensor, segment_ids: Tensor, mask_positions: Tensor) -> Tensor:
        """Score every piece of the vocabulary at some positions.

        token_ids       [B, L] integers
        segment_ids     [B, L] integers
        mask_positions  [B, M] integers in [0, L)
        returns         [B, M, K] float32
        """
        features = self.backbone(token_ids=token_ids, segment_ids=segment_ids)["sequence_output"]
        rows = torch.arange(len(features), device=features.device)[:, None]
        embedding = self.backbone.token_embedding.merged_weight()
        logits: Tensor = self.head(features[rows, mask_positions], embedding).float()
        return logits

    def fill(self, text: str, num_candidates: int = 5) -> tuple[tuple[Candidate, ...], ...]:
        """Name the likeliest pieces behind each "[MASK]" of a text, the likeliest first.

        Raises InputError for a text without a mask or with an unpaired surrogate,
        TextTooLongError for more tokens than the preset takes.
        """
        row = self.tokenizer.masked(text).token_ids
        masks = [index for index, token_id in enumerate(row) if token_id == self.tokenizer.mask_id]
        if not masks:
            raise InputError(f"the text has no {MASK}; at least one is needed")
        device = self.head.bias.device
        token_ids = torch.tensor([row], device=device)
        positions = torch.tensor([masks], device=device)
        logits = self.logits(token_ids, torch.zeros_like(token_ids), positions)[0]
        likeliest = logits.softmax(dim=-1).topk(num_candidates)
        return tuple(
            tuple(map(self._candidate, token_ids, probabilities))
            for token_ids, probabilities in zip(
                likeliest.indices.tolist(), likeliest.values.tolist(), strict=True
            )
        )

    def _candidate(self, token_id: int, probability: float) -> Candidate:
        is_piece = token_id < self.tokenizer.vocabulary_size
        text = self.tokenizer.vocabulary.decode([token_id]) if is_piece else ""
        return Candidate(token_id, text, probability)


def _read_keras(directory: Path) -> StoredHead:
    require_task(directory, KERAS_TASK)
    norm = f"{KERAS_PATH}/_intermediate_layer_norm/vars"
    recipes = keras_dense("dense", f"{KERAS_PATH}/_intermediate_dense") | {
        "layer_norm.weight": Recipe((f"{norm}/0",)),
        "layer_norm.bias": Recipe((f"{norm}/1",)),
        "bias": Recipe((f"{KERAS_PATH}/vars/0",)),
    }
    return keras_head(directory, recipes)


def _read_transformers(directory: Path) -> StoredHead:
    if not transformers_format.read_config(directory).tie_word_embeddings:
        raise PresetFileError(
            f"{directory / preset_files.CONFIG_FILE}: tie_word_embeddings is false; "
            "only a head that shares the token embedding is allowed"
        )
    with safetensors_files.open_transformers_weights(directory) as weights:
        names = weights.shapes.keys()
    if not any(name.startswith(TRANSFORMERS_PREFIX) for name in names):
        raise PresetFileError(
            f"{directory} holds no masked-LM head: its weights have no {TRANSFORMERS_PREFIX}…"
        )
    dense = f"{TRANSFORMERS_PREFIX}transform.dense"
    norm = f"{TRANSFORMERS_PREFIX}transform.LayerNorm"
    bias = next((name for name in TRANSFORMERS_BIASES if name in names), TRANSFORMERS_BIASES[0])
    recipes = {
        "dense.weight": Recipe((f"{dense}.weight",)),
        "dense.bias": Recipe((f"{dense}.bias",)),
        "layer_norm.weight": Recipe((f"{norm}.weight",)),
        "layer_norm.bias": Recipe((f"{norm}.bias",)),
        "bias": Recipe((bias,)),
    }
    return StoredHead(
        lambda: safetensors_files.open_transformers_weights(directory), recipes, _is_elsewhere
    )


def _is_elsewhere(name: str) -> bool:
    """Tell the backbone's tensors, other heads' and further names for what is shared."""
    return not name.startswith(TRANSFORMERS_PREFIX) or name in TRANSFORMERS_SHARED
