"""Let KerasHub record more of LoRA: convolutions, FNet's layers, embeddings; run by hand.

    pip install "triptych[keras]"
    KERAS_BACKEND=torch python -m tests.models.keras.record_lora

KerasHub computes with the adapters of embeddings but cannot save them, so their file is written
here, as `models.keras.lora_file` describes it. Knows nothing about our models.
"""

import json
from pathlib import Path

import h5py
import keras
import keras_hub
import numpy as np

from tests.models.keras.record import FNET, HERE, VIT, Case, record

CASES = (
    Case("vit_lora_conv", "ViTBackbone", VIT, lora_targets=("patch_embedding", "key", "dense_2")),
    Case(
        "fnet_lora_dense",
        "FNetBackbone",
        FNET,
        lora_targets=("embedding_projection", "intermediate_dense", "output_dense", "pooled_dense"),
    ),
)
EMBEDDINGS = {
    "vit_lora_conv": ("position_embedding",),
    "fnet_lora_dense": ("token_embedding", "segment_embedding"),
}
RANK = 2


def record_embeddings(directory: Path, targets: tuple[str, ...]) -> None:
    """Add a run with adapters on embeddings to a case that is recorded already."""
    random = np.random.default_rng(len(directory.name))
    backbone = keras_hub.models.Backbone.from_preset(str(directory / "preset"))
    backbone.enable_lora(RANK, target_layer_names=list(targets))
    layers = [each for each in backbone._flatten_layers(include_self=False) if each.weights]
    with h5py.File(directory / "embeddings.lora.h5", "w") as file:
        file["lora/vars/rank"] = RANK
        for position in backbone._lora_enabled_layers:
            for name in ("lora_embeddings_a", "lora_embeddings_b"):
                adapter = getattr(layers[position], name)
                adapter.assign(0.3 * random.standard_normal(adapter.shape))
                values = keras.ops.convert_to_numpy(adapter)
                file[f"lora/{position}/vars/{name}"] = values
    with np.load(directory / "inputs.npz") as stored:
        output = backbone(dict(stored))
    named = output if isinstance(output, dict) else {"output": output}
    arrays = {name: keras.ops.convert_to_numpy(tensor) for name, tensor in named.items()}
    np.savez(directory / "outputs_embeddings.npz", **arrays)
    if (embedding := backbone.token_embedding) is not None:
        scores = keras.ops.convert_to_numpy(embedding(output["sequence_output"], reverse=True))
        np.savez(directory / "reversed_embeddings.npz", scores=scores)


def main() -> None:
    for case in CASES:
        record(case)
        directory = HERE / "cases" / case.name
        record_embeddings(directory, EMBEDDINGS[case.name])
        about = json.loads((directory / "case.json").read_text())
        about["runs"].append(
            {
                "inputs": "inputs.npz",
                "outputs": "outputs_embeddings.npz",
                "preset": "preset",
                "lora": "embeddings.lora.h5",
            }
        )
        (directory / "case.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
