"""Flux backbones of random weights: steps and whole denoise loops, beside diffusers'.

Eager with every attention backend, then with every block compiled by itself, with the backend that
was fastest. diffusers' transformer shares our weights, so its output is compared as well.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import flops
from benchmarks.random_modules import random_module
from benchmarks.regional import compile_blocks
from benchmarks.rows import Bench, Measured, Subject
from benchmarks.workloads import FluxCase, Workload
from models import FluxBackbone
from models.flux import latents
from models.flux.conditioning import Conditioning
from models.flux.rows import PaintRow, step_rows

ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
IMAGE_REPETITIONS = 3
SIGMA = 0.5  # of the single steps


@dataclass(frozen=True, slots=True)
class Inputs:
    """Random inputs of one image, in the dtype of the backbone.

    patches [1, S, 64], image_ids [1, S, 3], text [1, T, 4096], text_ids [1, T, 3], pooled [1, 768],
    guidance [1]
    """

    patches: Tensor
    image_ids: Tensor
    text: Tensor
    text_ids: Tensor
    pooled: Tensor
    guidance: Tensor | None


@dataclass(frozen=True, slots=True)
class Size:
    """One image size of a case: its inputs, and what eager attention made of them."""

    case: FluxCase
    pixels: tuple[int, int]
    step: Subject
    image: Subject
    inputs: Inputs
    eager: Measured
    attention: str | None  # the fastest


def measure_flux(bench: Bench, case: FluxCase, workload: Workload, dtype: torch.dtype) -> None:
    """Report all rows of one preset."""

    def build() -> FluxBackbone:
        return FluxBackbone(**case.config, dtype=dtype)  # type: ignore[arg-type]

    backbone = random_module(build, bench.device, dtype)
    sizes = [
        _measure_eager(bench, backbone, case, size, workload.repetitions) for size in case.sizes
    ]
    peer = _diffusers_transformer(backbone) if find_spec("diffusers") else None
    for size in sizes:
        _measure_diffusers(bench, peer, size, workload.repetitions, "eager")
    compile_blocks(backbone, workload.compile_backend)
    for size in sizes:
        _measure_compiled(bench, backbone, size, workload.repetitions)
    if peer is not None:
        compile_blocks(peer, workload.compile_backend)
        for size in sizes:
            _measure_diffusers(bench, peer, size, workload.repetitions, "compiled")


def name(case: FluxCase, size: tuple[int, int]) -> str:
    return f"{case.name} {size[0]}x{size[1]}"


def image_subject(case: FluxCase, size: tuple[int, int], execution: str) -> Subject:
    return Subject(f"{name(case, size)}, denoise of {case.num_steps} steps", execution=execution)


def _measure_eager(
    bench: Bench, backbone: FluxBackbone, case: FluxCase, size: tuple[int, int], repetitions: int
) -> Size:
    width, height = size
    inputs = _inputs(backbone, case, width, height)
    num_patches = inputs.patches.shape[1]
    flop = flops.flux_step(backbone, num_patches, case.num_text_tokens)
    step = Subject(f"{name(case, size)}, step", num_flop=flop)
    image = replace(image_subject(case, size, "eager"), num_flop=case.num_steps * flop)
    eager = bench.measure(step, _step(backbone, inputs), repetitions)
    times: dict[str | None, float] = {None: eager.seconds}
    for attention in ATTENTION:
        times[attention] = bench.measure(
            replace(step, attention=attention),
            _with_attention(_step(backbone, inputs), attention),
            repetitions,
            eager.output,
        ).seconds
    fastest = min(times, key=times.__getitem__)
    measured = Size(case, size, step, image, inputs, eager, fastest)
    bench.measure(image, _image(backbone, measured), IMAGE_REPETITIONS)
    return measured


def _measure_compiled(bench: Bench, backbone: FluxBackbone, size: Size, repetitions: int) -> None:
    step = replace(size.step, execution="compiled", attention=size.attention)
    run = _with_attention(_step(backbone, size.inputs), size.attention)
    bench.measure(step, run, repetitions, size.eager.output)
    image = replace(size.image, execution="compiled", attention=size.attention)
    run = _with_attention(_image(backbone, size), size.attention)
    bench.measure(image, run, IMAGE_REPETITIONS)


def _measure_diffusers(
    bench: Bench, peer: nn.Module | None, size: Size, repetitions: int, execution: str
) -> None:
    step = replace(size.step, implementation="diffusers", execution=execution)
    if peer is None:
        bench.skip(step, "diffusers is not installed")
        return
    given = size.inputs

    def run() -> Tensor:
        velocity: Tensor = peer(
            hidden_states=given.patches,
            img_ids=given.image_ids[0],
            encoder_hidden_states=given.text,
            txt_ids=given.text_ids[0],
            pooled_projections=given.pooled,
            timestep=torch.full((1,), SIGMA, device=given.text.device),
            guidance=given.guidance,
            return_dict=False,
        )[0]
        return velocity

    bench.measure(step, run, repetitions, size.eager.output)


def _inputs(backbone: FluxBackbone, case: FluxCase, width: int, height: int) -> Inputs:
    weight = backbone.img_in.weight
    ids = latents.image_ids(width, height).to(weight.device)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=weight.device, dtype=weight.dtype)

    text = random(1, case.num_text_tokens, backbone.txt_in.in_features)
    pooled = random(1, backbone.vector_in.in_layer.in_features)
    patches = random(1, ids.shape[1], backbone.input_channels)
    text_ids = torch.zeros(1, case.num_text_tokens, 3, device=weight.device)
    guidance = None
    if case.guidance_scale is not None:
        guidance = torch.full((1,), case.guidance_scale, device=weight.device)
    return Inputs(patches, ids, text, text_ids, pooled, guidance)


def _step(backbone: FluxBackbone, given: Inputs) -> Callable[[], Tensor]:
    def run() -> Tensor:
        velocity: Tensor = backbone(
            image=given.patches,
            image_ids=given.image_ids,
            text=given.text,
            text_ids=given.text_ids,
            y=given.pooled,
            timesteps=torch.full((1,), SIGMA, device=given.text.device),
            guidance=given.guidance,
        )
        return velocity

    return run


def _image(backbone: FluxBackbone, size: Size) -> Callable[[], Tensor]:
    """Make the whole loop of one image, as the pipeline runs it."""

    def run() -> Tensor:
        row = _row(backbone, size)
        while not row.is_done:
            step_rows(backbone, [row], loras={})
        return row.patches[None]

    return run


def _row(backbone: FluxBackbone, size: Size) -> PaintRow:
    given, case = size.inputs, size.case
    width, height = size.pixels
    num_patches = given.patches.shape[1]
    return PaintRow(
        width=width,
        height=height,
        sigmas=case.schedule.sigmas(case.num_steps, num_patches).tolist(),
        conditioning=Conditioning(given.text[0], given.pooled[0]),
        guidance=case.guidance_scale,
        classifier_free=None,
        loras={},
        rotations=backbone.rotations(given.image_ids, given.text_ids)[0],
        patches=given.patches[0].float(),
    )


def _with_attention(run: Callable[[], Tensor], attention: str | None) -> Callable[[], Tensor]:
    def with_attention() -> Tensor:
        chosen: AbstractContextManager[None] = (
            nullcontext() if attention is None else sdpa_kernel(ATTENTION[attention])
        )
        with chosen:
            return run()

    return with_attention


def _diffusers_transformer(backbone: FluxBackbone) -> nn.Module:
    """Build diffusers' transformer around the same tensors."""
    from diffusers import FluxTransformer2DModel

    from models.flux.formats.diffusers_weights import to_diffusers

    with torch.device("meta"):
        transformer: nn.Module = FluxTransformer2DModel(
            in_channels=backbone.input_channels,
            num_layers=backbone.depth,
            num_single_layers=backbone.depth_single_blocks,
            attention_head_dim=backbone.hidden_size // backbone.num_heads,
            num_attention_heads=backbone.num_heads,
            joint_attention_dim=backbone.text_shape[-1],
            pooled_projection_dim=backbone.y_shape[-1],
            guidance_embeds=backbone.guidance_embed,
            axes_dims_rope=backbone.axes_dim,
        )
    state = to_diffusers(backbone.state_dict(), backbone.hidden_size)
    transformer.load_state_dict(state, assign=True)
    return transformer.eval()
