"""A Flux transformer packed for the CPU's products: LoRA on it, saving it, odd widths."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.flux.backbone import FluxBackbone
from models.flux.formats.lora_files import attach, attached, detach
from models.layers.adapters import Linear, merged_state
from models.layers.onednn import multiplies
from tests.models.flux.conftest import tiny_transformer
from tests.models.flux.lora_oracle import predict, write
from tests.models.flux.lora_styles import PEFT, linear_sizes, random_adapters
from tests.models.flux.test_backbone import backbone_of

pytestmark = pytest.mark.skipif(
    not multiplies(torch.bfloat16), reason="this processor has no products in bfloat16"
)
ROUNDED = 0.02  # of the largest: products in bfloat16 have 8 bits


@pytest.fixture
def plain() -> FluxBackbone:
    return backbone_of(tiny_transformer(has_guidance=True))


@pytest.fixture
def packed() -> FluxBackbone:
    backbone = backbone_of(tiny_transformer(has_guidance=True))
    backbone.pack(torch.bfloat16)
    return backbone


def assert_near(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=ROUNDED * wanted.abs().max().item())


def test_loras_count_as_on_plain_weights_and_leave_nothing_behind(
    plain: FluxBackbone, packed: FluxBackbone, tmp_path: Path
) -> None:
    before = predict(packed)
    sizes = linear_sizes(tiny_transformer(has_guidance=True))
    for seed, name in enumerate(("brush", "ink")):
        file = write(random_adapters(sizes, PEFT, seed=seed), tmp_path / f"{name}.safetensors")
        for backbone in (plain, packed):
            attach(backbone, file, name, 0.5)
    changed = predict(packed)
    assert (changed - before).abs().max() > 5 * ROUNDED * before.abs().max()
    assert_near(changed, predict(plain))

    for backbone in (plain, packed):
        attached(backbone)["ink"].value = -0.2
        detach(backbone, "brush")
    assert_near(predict(packed), predict(plain))
    detach(packed, "ink")
    assert torch.equal(predict(packed), before)


@pytest.mark.parametrize("weights_format", ["h5", "safetensors"])
def test_a_saved_preset_holds_the_rounded_weights_in_float32(
    plain: FluxBackbone, packed: FluxBackbone, weights_format: str, tmp_path: Path
) -> None:
    packed.save_to_preset(tmp_path, weights_format=weights_format)  # type: ignore[arg-type]

    loaded = FluxBackbone.from_preset(tmp_path).state_dict()

    blocks = {name for name, each in plain.named_modules() if isinstance(each, Linear)}
    blocks -= {"img_in", "txt_in", "final_layer.linear"}
    for name, weight in merged_state(plain).items():
        is_rounded = name.rpartition(".")[0] in blocks
        assert torch.equal(loaded[name], weight.bfloat16().float() if is_rounded else weight), name


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_odd_widths_can_be_packed(num_rows: int) -> None:
    backbone = FluxBackbone(
        7, 30, 1.7, 3, 1, 1, (2, 4, 4), 10_000, False, True, text_shape=(None, 13), y_shape=(5,)
    )
    given = (
        torch.randn(num_rows, 6, 7), torch.zeros(num_rows, 6, 3), torch.randn(num_rows, 5, 13),
        torch.zeros(num_rows, 5, 3), torch.randn(num_rows, 5), torch.rand(num_rows),
        torch.rand(num_rows),
    )  # fmt: skip
    with torch.inference_mode():
        wanted = backbone(*given)
        backbone.pack(torch.bfloat16)
        got = backbone(*given)

    assert got.shape == (num_rows, 6, 7)
    if num_rows:
        assert_near(got, wanted)
