"""The tiny transformer with LoRA files on it, in diffusers and here."""

from pathlib import Path

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor

from models.flux.backbone import FluxBackbone
from tests.models.flux.lora_styles import Tensors
from tests.models.flux.test_backbone import ask, inputs

TOLERANCE = 2e-5  # float32 sums in another order; the adapters change outputs by 1 and more
GIVEN = inputs(64, 32)


@torch.inference_mode()
def predict(backbone: FluxBackbone) -> Tensor:
    velocity: Tensor = backbone(**GIVEN)
    return velocity


def write(tensors: Tensors, file: Path) -> Path:
    save_file(tensors, file)
    return file


def attach_to_oracle(oracle: FluxTransformer2DModel, file: Path, name: str = "style") -> None:
    """Load a file with diffusers; its converter leaves out the prefix of the outer modules."""
    tensors, alphas = FluxPipeline.lora_state_dict(
        file.parent, weight_name=file.name, return_alphas=True
    )
    state = {f"transformer.{key.removeprefix('transformer.')}": t for key, t in tensors.items()}
    oracle.load_lora_adapter(state, network_alphas=alphas, adapter_name=name)


def assert_equal(backbone: FluxBackbone, oracle: FluxTransformer2DModel, before: Tensor) -> None:
    got, wanted = predict(backbone), ask(oracle, GIVEN)
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE)
    assert (got - before).abs().max() > 0.05, "the adapters should be visible"
