"""One encoder in one runtime: `python -m benchmarks.peers.encoders RUNTIME MODELS FOLDER`.

The contestants of `benchmarks.cpu_encoders`, each a process in an environment that has its runtime.
All read the same weights from MODELS and get the same inputs: ViT's logits and FNet's features come
out. Knows nothing about who computes when, nor about what is right.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, library, nn

from benchmarks.peers.line_protocol import Compute, Outputs, main

if TYPE_CHECKING:
    from openvino import Model

    from models import FNetBackbone
    from models.vit.image_classifier import ImageClassifier

Family = Literal["vit", "fnet"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Precision = Literal["float32", "bfloat16", "int8"]

NUM_THREADS = 2
KERAS_SUFFIX = "_keras"  # beside a family's folder in transformers' format, the one for KerasHub


@dataclass(frozen=True, slots=True)
class Case:
    """`num_tokens` is 0 for images."""

    family: Family
    precision: Precision
    batch_size: int
    num_tokens: int = 0

    def __str__(self) -> str:
        return f"{self.family} {self.precision} {self.batch_size} {self.num_tokens}"

    @classmethod
    def parse(cls, text: str) -> "Case":
        family, precision, batch_size, num_tokens = text.split()
        return cls(
            cast(Family, family), cast(Precision, precision), int(batch_size), int(num_tokens)
        )

    @property
    def dtype(self) -> torch.dtype:
        return cast(torch.dtype, getattr(torch, self.precision))

    def inputs_file(self, models: Path) -> Path:
        return models / f"{self.family}_{self.batch_size}_{self.num_tokens}.npy"

    def inputs(self, models: Path) -> Tensor:
        """Images [B, C, H, W] in float32, or token ids [B, L]."""
        return torch.from_numpy(np.load(self.inputs_file(models)))


def triptych(case: Case, models: Path) -> Compute:
    """As a worker loads it: from float32, its products then in the case's precision."""
    inputs = case.inputs(models)
    if case.family == "vit":
        classifier = _classifier(models / "vit", case.dtype)
        images = inputs.permute(0, 2, 3, 1).contiguous()
        return lambda: _array(classifier.logits(images))
    backbone = _fnet_backbone(models / "fnet", case.dtype)
    given = {"token_ids": inputs, "segment_ids": torch.zeros_like(inputs)}
    return _inference(lambda: backbone(**given)["sequence_output"])


@lru_cache(maxsize=1)
def _classifier(folder: Path, dtype: torch.dtype) -> "ImageClassifier":
    from models.vit.image_classifier import ImageClassifier

    classifier = ImageClassifier.from_preset(folder)
    classifier.pack(dtype)
    return classifier


@lru_cache(maxsize=1)
def _fnet_backbone(folder: Path, dtype: torch.dtype) -> "FNetBackbone":
    from models import FNetBackbone

    backbone = FNetBackbone.from_preset(folder, trainable=False)
    backbone.pack(dtype)
    return backbone


def transformers(case: Case, models: Path) -> Compute:
    module, inputs = _transformers_module(case.family, case.dtype, models), _in_dtype(case, models)
    return _inference(lambda: module(inputs))


def timm(case: Case, models: Path) -> Compute:
    """ViT alone."""
    if case.family != "vit":
        raise NotImplementedError("timm has no FNet")
    module, inputs = _timm_module(case.dtype, models), _in_dtype(case, models)
    return _inference(lambda: module(inputs))


@lru_cache(maxsize=1)
def _timm_module(dtype: torch.dtype, models: Path) -> nn.Module:
    from timm.models import VisionTransformer

    stored = _transformers_module("vit", dtype, models).module
    config = cast(Any, stored.config)  # transformers' ViTConfig
    module: nn.Module = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=config.num_labels,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
        norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
    )
    module.load_state_dict(_timm_names(stored.state_dict()))
    return module.eval().to(dtype)


def keras_hub(case: Case, models: Path) -> Compute:
    module, inputs = _keras_module(case.family, case.precision, models), _in_dtype(case, models)
    if case.family == "vit":
        images = inputs.permute(0, 2, 3, 1).contiguous()
        return _inference(lambda: module(images))
    given = {"token_ids": inputs, "segment_ids": torch.zeros_like(inputs)}
    return _inference(lambda: module(given)["sequence_output"])


@lru_cache(maxsize=1)
def _keras_module(family: str, precision: str, models: Path) -> Callable[[object], Any]:
    os.environ["KERAS_BACKEND"] = "torch"
    from keras_hub import models as keras_models

    kind = keras_models.ImageClassifier if family == "vit" else keras_models.Backbone
    folder = str(models / f"{family}{KERAS_SUFFIX}")
    return cast(Callable[[object], Any], kind.from_preset(folder, dtype=precision))


def onnxruntime(case: Case, models: Path) -> Compute:
    """In float32, and in int8 by its own dynamic quantization, with a scale per output."""
    if case.precision == "bfloat16":
        raise NotImplementedError("ONNX Runtime has no bfloat16 products on x86")
    from onnxruntime import InferenceSession, SessionOptions

    file = models / f"{case.family}_{case.num_tokens}.onnx"
    if not file.exists():
        # for any batch; a length is part of the Fourier transform
        module = _transformers_module(case.family, torch.float32, models)
        two = case.inputs(models)[:1].repeat_interleave(2, dim=0)
        torch.onnx.export(module, (two,), file, dynamic_shapes={"given": {0: "batch"}})
    if case.precision == "int8":
        file = _quantized(file)
    options = SessionOptions()
    options.intra_op_num_threads = NUM_THREADS
    session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: case.inputs(models).numpy()}
    return lambda: cast(Outputs, session.run(None, given)[0])


def _quantized(file: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = file.with_stem(f"{file.stem}_int8")
    if not quantized.exists():
        quantize_dynamic(
            file,
            quantized,
            op_types_to_quantize=["MatMul", "Gemm"],  # it has no fast convolution in int8
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    return quantized


def openvino(case: Case, models: Path) -> Compute:
    """Converted from the module, as its documentation says, and compiled for exactly this shape."""
    from openvino import compile_model

    inputs = case.inputs(models)
    converted = _converted(case.family, (1, *inputs.shape[1:]), models)
    converted.reshape(list(inputs.shape))
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[case.precision],
        "INFERENCE_NUM_THREADS": NUM_THREADS,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = compile_model(converted, "CPU", options)
    given = inputs.numpy()
    return lambda: cast(Outputs, compiled(given)[0])


@lru_cache
def _converted(family: Family, shape: tuple[int, ...], models: Path) -> "Model":
    from openvino import convert_model

    example = torch.zeros(shape, dtype=torch.float32 if family == "vit" else torch.long)
    module = _transformers_module(family, torch.float32, models)
    return convert_model(module, example_input=example)


RUNTIMES: dict[str, Callable[[Case, Path], Compute]] = {
    runtime.__name__: runtime
    for runtime in (triptych, transformers, timm, keras_hub, onnxruntime, openvino)
}
IN_INT8 = (triptych.__name__, onnxruntime.__name__)


class _Composed(nn.Module):
    """A module of transformers with one tensor in and one out, as exporters want it."""

    def __init__(self, module: nn.Module, is_vit: bool) -> None:
        super().__init__()
        self.module, self.is_vit = module, is_vit

    def forward(self, given: Tensor) -> Tensor:
        outputs = self.module(given)
        result: Tensor = outputs.logits if self.is_vit else outputs.last_hidden_state
        return result


@lru_cache(maxsize=1)
def _transformers_module(family: str, dtype: torch.dtype, models: Path) -> _Composed:
    from transformers import FNetModel, ViTForImageClassification

    is_vit, folder = family == "vit", models / family
    if is_vit:
        module = ViTForImageClassification.from_pretrained(folder, attn_implementation="sdpa")
    else:
        module = FNetModel.from_pretrained(folder)
    return _Composed(module.eval().to(dtype), is_vit)


def _timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give timm's names, and one matrix to query, key and value."""
    renamed = (
        ("vit.embeddings.cls_token", "cls_token"),
        ("vit.embeddings.position_embeddings", "pos_embed"),
        ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("vit.layers", "blocks"),
        ("vit.layernorm", "norm"),
        ("classifier", "head"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("attention.o_proj", "attn.proj"),
    )
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name, tensor = name.replace("attention.q_proj", "attn.qkv"), torch.cat(parts)
        for theirs, timms in renamed:
            name = name.replace(theirs, timms)
        found[name] = tensor
    return found


def _in_dtype(case: Case, models: Path) -> Tensor:
    inputs = case.inputs(models)
    return inputs.to(case.dtype) if inputs.is_floating_point() else inputs


def _inference(forward: Callable[[], Tensor]) -> Compute:
    def compute() -> Outputs:
        with torch.inference_mode():
            return _array(forward())

    return compute


def _array(outputs: Tensor) -> Outputs:
    return cast(Outputs, outputs.float().numpy())


def load(runtime: str, models: Path, case: str) -> Compute:
    parsed = Case.parse(case)
    if parsed.precision == "int8" and runtime not in IN_INT8:
        raise NotImplementedError(f"{runtime} has no int8 but by a package for quantization")
    return RUNTIMES[runtime](parsed, models)


def torchvision_operators() -> library.Library | None:
    """Let timm import a torchvision that is built for CUDA beside a torch that is not.

    Its operators do not load then; nobody here takes any, but the import asks for these two. They
    are there as long as what is returned is.
    """
    if torch.version.cuda is not None:
        return None
    operators = library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
    return operators


if __name__ == "__main__":
    kept = torchvision_operators()
    torch.set_num_threads(NUM_THREADS)
    main(partial(load, sys.argv[1], Path(sys.argv[2])))
