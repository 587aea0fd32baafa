"""Let KerasHub record what the tests of this folder compare with; run by hand.

    pip install "triptych[keras]"
    KERAS_BACKEND=torch python -m tests.models.keras.record

Writes `layers.json` and the cases in `CASES` below. The other cases in `cases/` were recorded the
same way, before this file. Knows nothing about our models. KerasHub 0.32.0, Keras 3.15.1.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import h5py
import keras
import keras_hub
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Config = Mapping[str, object]

HERE = Path(__file__).parent
BATCH = 2

FLUX: Config = {
    "input_channels": 4,
    "hidden_size": 8,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [0, 2, 2],
    "theta": 10000,
    "use_bias": True,
    "guidance_embed": True,
    "image_shape": [6, 4],
    "text_shape": [3, 5],
    "image_ids_shape": [6, 3],
    "text_ids_shape": [3, 3],
    "y_shape": [5],
}
VIT: Config = {
    "image_shape": [8, 8, 3],
    "patch_size": 4,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "mlp_dim": 12,
}
FNET: Config = {
    "vocabulary_size": 11,
    "num_layers": 2,
    "hidden_dim": 6,
    "intermediate_dim": 8,
    "max_sequence_length": 9,
    "num_segments": 3,
}


@dataclass(frozen=True, slots=True)
class Case:
    """A preset to save, and the forward pass of what KerasHub loads back in float32."""

    name: str
    family: str
    config: Config
    dtype: str = "float32"
    max_shard_bytes: int | None = None
    lora_targets: tuple[str, ...] = ()
    is_compiled: bool = False  # then the weights hold an optimizer's state too


CASES = (
    Case("flux_single_only", "FluxBackbone", {**FLUX, "depth": 0, "depth_single_blocks": 2}),
    Case(
        "flux_single_only_plain",
        "FluxBackbone",
        {**FLUX, "depth": 0, "guidance_embed": False, "use_bias": False},
        dtype="float16",
    ),
    Case("flux_no_blocks", "FluxBackbone", {**FLUX, "depth": 0, "depth_single_blocks": 0}),
    Case(
        "flux_odd_heads_bfloat16",
        "FluxBackbone",
        {
            **FLUX,
            "hidden_size": 18,
            "num_heads": 3,
            "mlp_ratio": 1.5,
            "axes_dim": [2, 2, 2],
            "depth_single_blocks": 0,
            "use_bias": False,
        },
        dtype="bfloat16",
    ),
    Case(
        "flux_lora_modulation_sharded",
        "FluxBackbone",
        FLUX,
        max_shard_bytes=10_000,
        lora_targets=("dense_8", "dense_13", "dense_20", "dense_22", "dense_17"),
    ),
    Case("vit_odd_heads", "ViTBackbone", {**VIT, "hidden_dim": 10, "num_heads": 3}),
    Case(
        "vit_channels_first",
        "ViTBackbone",
        {**VIT, "image_shape": [3, 8, 12], "data_format": "channels_first"},
    ),
    Case(
        "vit_wide_bfloat16",
        "ViTBackbone",
        {
            **VIT,
            "image_shape": [8, 48, 1],
            "patch_size": [4, 3],
            "use_mlp_bias": False,
            "use_class_token": False,
        },
        dtype="bfloat16",
    ),
    Case("vit_lora_all", "ViTBackbone", VIT, lora_targets=("query", "attention_output", "dense_1")),
    Case("fnet_compiled", "FNetBackbone", FNET, is_compiled=True),
    Case("fnet_bfloat16_sharded", "FNetBackbone", FNET, "bfloat16", max_shard_bytes=300),
)


def record(case: Case) -> None:
    """Save one case; what was there goes."""
    directory = HERE / "cases" / case.name
    shutil.rmtree(directory, ignore_errors=True)
    random = np.random.default_rng(len(case.name))
    size = None if case.max_shard_bytes is None else case.max_shard_bytes / 2**30
    _build_random(case, random).save_to_preset(str(directory / "preset"), max_shard_size=size)
    inputs = dict(_inputs(case, random))
    np.savez(directory / "inputs.npz", allow_pickle=False, **inputs)

    keras.utils.clear_session()  # layers are counted from nothing again
    kept = {key: case.config[key] for key in ("data_format",) if key in case.config}
    backbone = keras_hub.models.Backbone.from_preset(str(directory / "preset"), **kept)
    np.savez(directory / "outputs.npz", allow_pickle=False, **_run(backbone, inputs))
    runs = [_described("outputs.npz", None)]
    if case.lora_targets:
        _add_adapters(backbone, case, random)
        backbone.save_lora_weights(str(directory / "adapter.lora.h5"))
        np.savez(directory / "outputs_lora.npz", allow_pickle=False, **_run(backbone, inputs))
        runs.append(_described("outputs_lora.npz", "adapter.lora.h5"))
    about = {"class": case.family, "constructor": case.config, "dtype": case.dtype, "runs": runs}
    (directory / "case.json").write_text(json.dumps(about, indent=1) + "\n")


def _described(outputs: str, lora: str | None) -> dict[str, str | None]:
    return {"inputs": "inputs.npz", "outputs": outputs, "preset": "preset", "lora": lora}


def _build_random(case: Case, random: np.random.Generator) -> keras.Model:
    keras.utils.clear_session()
    keras.config.set_dtype_policy(case.dtype)  # FluxBackbone has no argument for it
    backbone = getattr(keras_hub.models, case.family)(**case.config)
    keras.config.set_dtype_policy("float32")
    for variable in backbone.weights:
        centre = 1.0 if variable.name in ("gamma", "scale") else 0.0
        variable.assign(centre + 0.3 * random.standard_normal(variable.shape))
    if case.is_compiled:
        backbone.compile("adam", "mse")
    return backbone


def _add_adapters(backbone: keras.Model, case: Case, random: np.random.Generator) -> None:
    backbone.enable_lora(2, target_layer_names=list(case.lora_targets))
    for layer in backbone._flatten_layers():
        if getattr(layer, "lora_enabled", False):
            for adapter in (layer.lora_kernel_a, layer.lora_kernel_b):
                adapter.assign(0.3 * random.standard_normal(adapter.shape))


def _inputs(case: Case, random: np.random.Generator) -> Iterator[tuple[str, Array]]:
    config = case.config
    match case.family:
        case "ViTBackbone":
            shape = (BATCH, *_shape(config, "image_shape"))
            yield "images", random.standard_normal(shape).astype("float32")
        case "FNetBackbone":
            for name, count in (("token_ids", "vocabulary_size"), ("segment_ids", "num_segments")):
                yield name, random.integers(_number(config, count), size=(BATCH, 7)).astype("int32")
        case _:
            for name in ("image", "text", "y"):
                shape = (BATCH, *_shape(config, f"{name}_shape"))
                yield name, random.standard_normal(shape).astype("float32")
            for name in ("image_ids", "text_ids"):
                shape = (BATCH, *_shape(config, f"{name}_shape"))
                yield name, random.integers(9, size=shape).astype("float32")
            yield "timesteps", random.random(BATCH).astype("float32")
            yield "guidance", (3.5 * random.random(BATCH)).astype("float32")


def _shape(config: Config, key: str) -> tuple[int, ...]:
    shape = config[key]
    assert isinstance(shape, list), f"{key} is a list in every case"
    return tuple(shape)


def _number(config: Config, key: str) -> int:
    number = config[key]
    assert isinstance(number, int), f"{key} is a number in every case"
    return number


def _run(backbone: keras.Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    output = backbone(inputs)
    named = output if isinstance(output, dict) else {"output": output}
    return {name: keras.ops.convert_to_numpy(tensor) for name, tensor in named.items()}


def layers() -> Iterator[tuple[str, Config]]:
    """Give the backbones whose layers are listed: what can change names, order and paths."""
    for depth, single, guidance, bias in product((0, 1), (0, 1), (False, True), (False, True)):
        changed = {"depth": depth, "depth_single_blocks": single}
        yield "FluxBackbone", {**FLUX, **changed, "guidance_embed": guidance, "use_bias": bias}
    for has in (False, True):
        changed = {"depth": 2, "depth_single_blocks": 2, "guidance_embed": has, "use_bias": has}
        yield "FluxBackbone", {**FLUX, **changed}
    yield "ViTBackbone", VIT
    for flag in ("use_mha_bias", "use_mlp_bias", "use_class_token", "use_patch_bias"):
        yield "ViTBackbone", {**VIT, flag: False}
    yield "ViTBackbone", {**VIT, "num_layers": 3, "num_heads": 3, "hidden_dim": 10}
    yield "FNetBackbone", FNET
    yield "FNetBackbone", {**FNET, "num_layers": 1}


def list_layers(family: str, config: Config, scratch: Path) -> dict[str, object]:
    """List layers with weights in flattened order, with the datasets of their own variables."""
    keras.utils.clear_session()
    backbone = getattr(keras_hub.models, family)(**config)
    for number, variable in enumerate(backbone.weights):
        variable.assign(np.full(variable.shape, number))  # to know it again in the file
    backbone.save_weights(scratch)
    datasets = _datasets(scratch)
    numbers = {id(variable): number for number, variable in enumerate(backbone.weights)}
    flattened = [each for each in backbone._flatten_layers(include_self=False) if each.weights]
    listed = [
        {
            "name": layer.name,
            "variables": {
                datasets[numbers[id(each)]]: list(each.shape) for each in layer._trainable_variables
            },
        }
        for layer in flattened
    ]
    return {"class_name": family, "config": config, "layers": listed}


def _datasets(file: Path) -> dict[int, str]:
    found: dict[int, str] = {}

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[int(item[()].flat[0])] = name

    with h5py.File(file) as weights:
        weights.visititems(note)
    return found


def main() -> None:
    for case in CASES:
        record(case)
    scratch = HERE / "scratch.weights.h5"
    listed = [
        json.dumps(list_layers(family, config, scratch), separators=(",", ":"))
        for family, config in layers()
    ]
    scratch.unlink()
    (HERE / "layers.json").write_text("[\n" + ",\n".join(listed) + "\n]\n")


if __name__ == "__main__":
    main()
