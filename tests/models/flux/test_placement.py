"""Pipelines that do not lie whole on the device: they paint what a resident one paints."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from models.errors import PresetError
from models.flux.backbone import FluxBackbone
from models.flux.parts import load_backbone
from models.flux.placement import Placement
from models.flux.sizes import read_sizes
from models.flux.text_to_image import TextToImage
from models.layers.adapters import Linear, adaptable_layers, adapters_of
from models.presets import get_preset
from tests.models.checkpoints.test_float8 import scaled
from tests.models.flux.loops import SIZE, Pipelines, last_patches
from tests.models.flux.lora_styles import PEFT, linear_sizes, random_adapters
from tests.models.flux.original_files import original_transformer, tiny_original, write
from tests.models.flux.test_backbone import inputs

NUM_BLOCKS = 4  # two double, two single
ALL_STREAMED = Placement(num_streamed_blocks=NUM_BLOCKS, streams_text_encoder=True)
FLOAT8 = Placement(float8=True)


@pytest.fixture(scope="module")
def directory(pipelines: Pipelines) -> Path:
    return pipelines["dev"][1]


@pytest.fixture(scope="module")
def expected(directory: Path) -> Tensor:
    """What a resident pipeline paints."""
    return last_patches(TextToImage.from_preset(directory), [7])


@torch.inference_mode()
def velocity(backbone: FluxBackbone) -> Tensor:
    dtype = backbone.img_in.weight.dtype
    names = ("image", "text", "y")
    given = {n: each.to(dtype) if n in names else each for n, each in inputs(64, 48).items()}
    predicted: Tensor = backbone(**given)
    return predicted.float()


@pytest.mark.parametrize("num_streamed", [1, 3, NUM_BLOCKS])
def test_streamed_blocks_paint_the_same_bit_for_bit(
    directory: Path, expected: Tensor, num_streamed: int
) -> None:
    placement = Placement(num_streamed_blocks=num_streamed, streams_text_encoder=True)
    streamed = TextToImage.from_preset(directory, placement=placement)
    assert torch.equal(last_patches(streamed, [7]), expected)


def test_the_last_blocks_are_streamed_and_the_rest_is_not(directory: Path) -> None:
    pipeline = TextToImage.from_preset(directory, placement=Placement(num_streamed_blocks=3))
    pipeline.to("meta")
    devices = [next(block.parameters()).device.type for block in pipeline.backbone.blocks]
    assert devices == ["meta", "cpu", "cpu", "cpu"]
    assert all(each.is_meta for each in pipeline.text_encoders.t5.parameters())
    assert all(each.is_meta for each in pipeline.autoencoder.parameters())


@pytest.mark.parametrize("placement", [Placement(), ALL_STREAMED], ids=["resident", "streamed"])
def test_a_pipeline_that_was_moved_away_and_back_paints_the_same(
    directory: Path, expected: Tensor, placement: Placement
) -> None:
    pipeline = TextToImage.from_preset(directory, placement=placement)
    assert torch.equal(last_patches(pipeline, [7]), expected)
    pipeline.to("cpu")
    assert torch.equal(last_patches(pipeline, [7]), expected)


def write_lora(backbone: FluxBackbone, file: Path) -> Path:
    layers = {name: each for name, each in adaptable_layers(backbone).items() if "blocks" in name}
    assert all(isinstance(each, Linear) for each in layers.values())
    sizes = {name: size for name, size in linear_sizes(backbone).items() if name in layers}
    save_file(random_adapters(sizes, PEFT), file)
    return file


def test_a_lora_on_streamed_blocks_paints_the_same_bit_for_bit(
    directory: Path, expected: Tensor, tmp_path: Path
) -> None:
    resident = TextToImage.from_preset(directory)
    streamed = TextToImage.from_preset(directory, placement=ALL_STREAMED)
    file = write_lora(resident.backbone, tmp_path / "brush.safetensors")
    for pipeline in (resident, streamed):
        pipeline.load_lora(file, scale=0.5)
    painted = last_patches(streamed, [7])
    assert torch.equal(painted, last_patches(resident, [7]))
    assert not torch.allclose(painted, expected, atol=0.01)
    streamed.remove_lora("brush")
    assert torch.equal(last_patches(streamed, [7]), expected)


def test_float8_predicts_nearly_the_same_in_half_of_the_memory(directory: Path) -> None:
    plain = load_backbone(directory, "cpu", torch.bfloat16)
    kept = load_backbone(directory, "cpu", torch.bfloat16, FLOAT8)
    near = F.cosine_similarity(velocity(kept).flatten(), velocity(plain).flatten(), dim=0)
    assert near > 0.995
    halves, matrices = (
        sum(layer.weight.nbytes for layer in linear_layers(each)) for each in (kept, plain)
    )
    assert halves == matrices // 2


def linear_layers(backbone: FluxBackbone) -> list[Linear]:
    """Those of the blocks."""
    modules = [module for block in backbone.blocks for module in block.modules()]
    return [module for module in modules if isinstance(module, Linear)]


def test_float8_keeps_all_but_the_blocks_as_they_are(directory: Path) -> None:
    kept = load_backbone(directory, "cpu", None, FLOAT8)
    assert kept.img_in.weight.dtype == kept.final_layer.linear.weight.dtype == torch.float32
    assert {each.weight.dtype for each in linear_layers(kept)} == {torch.float8_e4m3fn}
    assert {each.bias.dtype for each in linear_layers(kept)} == {torch.float32}


@pytest.fixture(scope="module")
def original_tensors() -> dict[str, Tensor]:
    return original_transformer(tiny_original(has_guidance=True))


@pytest.mark.parametrize("storage", ["plain", "plain e5m2", "scaled", "scaled per row"])
def test_a_checkpoint_in_float8_loses_nothing_more(
    tmp_path: Path, original_tensors: dict[str, Tensor], storage: str
) -> None:
    dtype = torch.float8_e5m2 if "e5m2" in storage else torch.float8_e4m3fn
    if storage.startswith("plain"):
        stored = {name: tensor.to(dtype) for name, tensor in original_tensors.items()}
    else:
        stored, _ = scaled(original_tensors, "scale_weight", per_row=storage.endswith("row"))
    file = write(tmp_path / "flux1-x.safetensors", stored)
    kept, plain = load_backbone(file, "cpu", None, FLOAT8), load_backbone(file, "cpu", None)
    assert {each.weight.dtype for each in linear_layers(kept)} == {dtype}
    assert torch.equal(velocity(kept), velocity(plain))


def test_float8_in_the_layout_of_diffusers_loses_nothing_more(tmp_path: Path) -> None:
    oracle = tiny_original(has_guidance=True)
    oracle.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    write(file, {name: each.to(torch.float8_e4m3fn) for name, each in oracle.state_dict().items()})
    kept, plain = load_backbone(tmp_path, "cpu", None, FLOAT8), load_backbone(tmp_path, "cpu", None)
    assert torch.equal(velocity(kept), velocity(plain))


def test_a_lora_in_float8_is_added_in_the_computing_dtype(directory: Path, tmp_path: Path) -> None:
    pipeline = TextToImage.from_preset(directory, placement=FLOAT8)
    plain = last_patches(pipeline, [7])
    pipeline.load_lora(write_lora(pipeline.backbone, tmp_path / "brush.safetensors"))
    layer = pipeline.backbone.get_submodule("single_blocks.0.linear1")
    assert isinstance(layer, Linear)
    assert {each.a.dtype for each in adapters_of(layer)} == {torch.float32}
    assert not torch.allclose(last_patches(pipeline, [7]), plain, atol=0.01)
    pipeline.remove_lora("brush")
    assert torch.equal(last_patches(pipeline, [7]), plain)


def test_float8_blocks_are_streamed_too(directory: Path) -> None:
    both = Placement(float8=True, num_streamed_blocks=NUM_BLOCKS)
    streamed = TextToImage.from_preset(directory, placement=both)
    resident = TextToImage.from_preset(directory, placement=FLOAT8)
    assert torch.equal(last_patches(streamed, [7]), last_patches(resident, [7]))


@pytest.mark.parametrize(("tile_from", "is_tiled"), [(96, True), (97, False)])
def test_images_are_tiled_from_the_longer_side_on(
    directory: Path, expected: Tensor, tile_from: int, is_tiled: bool
) -> None:
    pipeline = TextToImage.from_preset(directory, placement=Placement(tile_from=tile_from))
    whole_calls: list[object] = []
    # whole, the decoder runs as one module; tiles run its layers
    pipeline.autoencoder.decoder.register_forward_hook(lambda *_: whole_calls.append(_))
    image = pipeline.decode(expected, *SIZE)
    assert bool(whole_calls) is not is_tiled
    whole = TextToImage.from_preset(directory).decode(expected, *SIZE)
    assert abs(image.astype(int) - whole.astype(int)).max() <= 1  # float32 rounding at a half


def test_more_streamed_blocks_than_there_are_is_refused(directory: Path) -> None:
    with pytest.raises(PresetError, match=r"num_streamed_blocks is 5, but .* has 4 blocks"):
        TextToImage.from_preset(directory, placement=Placement(num_streamed_blocks=5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_streamed_blocks": -1}, "num_streamed_blocks -1 is less than 0"),
        ({"tile_from": 0}, "tile_from 0 is less than 1 pixel"),
    ],
)
def test_a_placement_out_of_range_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Placement(**arguments)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_on_cuda_streamed_blocks_take_only_their_buffers() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    sizes = read_sizes(Path(get_preset("flux_shapes").handle))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    placement = Placement(num_streamed_blocks=len(sizes.block_bytes), streams_text_encoder=True)
    pipeline = TextToImage.from_preset("flux_shapes", "cuda", placement=placement)
    others = sizes.other_transformer_bytes + sizes.other_t5_bytes + sizes.clip_bytes
    rounding = 2**20  # of the allocator
    limit = others + sizes.autoencoder_bytes + rounding
    assert torch.cuda.max_memory_allocated() - before < limit
    resident = TextToImage.from_preset("flux_shapes", "cuda")
    assert torch.equal(last_patches(pipeline, [7]), last_patches(resident, [7]))
