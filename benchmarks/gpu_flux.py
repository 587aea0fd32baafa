"""Flux backbones of random weights, by one lever after the other, beside diffusers'.

The most telling rows first: whole images and steps of one image, then diffusers', then float8, and
several images in flight. Float8 rounds the weights, so what needs them whole is measured before.
diffusers' transformer shares our weights, so its output is compared as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import flops
from benchmarks.random_modules import random_module
from benchmarks.regional import compile_blocks
from benchmarks.rows import Bench, Measured, Subject, said
from benchmarks.workloads import FluxCase, Workload
from models.execution import float8_products
from models.execution.block_cache import BlockCache
from models.execution.compiled_blocks import compile_modules, repeated_blocks, undo_compiling
from models.execution.cuda_graphs import GraphedCall
from models.flux import latents
from models.flux.backbone import FluxBackbone
from models.flux.conditioning import Conditioning
from models.flux.rows import PaintRow, step_rows

# beside what torch chooses, which knows where one is wrong: each is measured, none is preferred
KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
IMAGE_REPETITIONS = 3
MANY_STEPS = 8  # from here on a cache may skip some
GRAPH_SIDE = 768  # pixels: in larger images launches do not count
CACHE_THRESHOLD = 0.1


@dataclass(frozen=True, slots=True)
class Inputs:
    """Random inputs of one image, in the dtype of the backbone.

    patches [1, S, 64], image_ids [1, S, 3], text [1, T, 4096], text_ids [1, T, 3], pooled [1, 768]
    """

    patches: Tensor
    image_ids: Tensor
    text: Tensor
    text_ids: Tensor
    pooled: Tensor


@dataclass(frozen=True, slots=True)
class Size:
    """One image size of a case, its inputs, and what eager execution made of them."""

    case: FluxCase
    pixels: tuple[int, int]
    flop: int  # of a step
    inputs: Inputs
    step: Tensor | None = None
    image: Tensor | None = None

    @property
    def step_subject(self) -> Subject:
        return Subject(f"{name(self.case, self.pixels)}, step", num_flop=self.flop)

    @property
    def image_subject(self) -> Subject:
        subject = image_subject(self.case, self.pixels, "eager")
        return replace(subject, num_flop=self.case.num_steps * self.flop)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Measures one backbone at all sizes, each time by the levers that are on then."""

    bench: Bench
    backbone: FluxBackbone
    workload: Workload

    def measure(self, size: Size, execution: str) -> Size:
        """Report a step and an image; give the size with the outputs, where it had none."""
        bench = self.bench
        step = bench.measure(
            replace(size.step_subject, execution=execution),
            partial(self.step, size),
            self.workload.repetitions,
            size.step,
        )
        image = bench.measure(
            replace(size.image_subject, execution=execution),
            partial(self.image, size),
            IMAGE_REPETITIONS,
            size.image,
        )
        return replace(size, step=_kept(size.step, step), image=_kept(size.image, image))

    def measure_cached(self, size: Size, execution: str) -> None:
        """Report an image with the first-block cache, and how many steps it skipped."""
        if size.case.num_steps < MANY_STEPS or self.bench.is_over:  # it is of no use there
            return
        row = self.begin(size, is_cached=True)
        self.finish([row])
        skipped = sum(cache.num_skipped for cache in row.caches)
        self.bench.measure(
            replace(
                size.image_subject,
                execution=f"{execution}, cache {CACHE_THRESHOLD}",
                detail=f"{skipped} of {size.case.num_steps} steps skipped",
            ),
            lambda: self.finish([self.begin(size, is_cached=True)]),
            IMAGE_REPETITIONS,
            size.image,
        )

    def measure_graphs(self, size: Size, execution: str) -> None:
        """Report what CUDA graphs make of small images."""
        if max(size.pixels) > GRAPH_SIDE and size.case.num_steps > MANY_STEPS:
            return
        if self.bench.device.type != "cuda":
            self.bench.skip(
                replace(size.image_subject, execution=f"{execution}, CUDA graph"), "no CUDA"
            )
            return
        graphed = GraphedCall(self.backbone, self.backbone.predict)
        setattr(self.backbone, "predict", graphed)  # noqa: B010  # mypy allows no method this
        try:
            self.measure(size, f"{execution}, CUDA graph")
        finally:
            delattr(self.backbone, "predict")  # the class's own again

    def measure_in_flight(self, size: Size, num_images: int, execution: str) -> None:
        """Report a step of several images in one forward."""
        rows = [self.begin(size) for _ in range(num_images)]

        def run() -> Tensor:
            for row in rows:
                row.step = 0
            step_rows(self.backbone, rows, loras={})
            return rows[0].patches

        subject = replace(
            size.step_subject,
            case=f"{size.step_subject.case}, {num_images} in flight",
            execution=execution,
            num_items=num_images,
            num_flop=num_images * size.flop,
        )
        self.bench.measure(subject, run, self.workload.repetitions)

    def step(self, size: Size) -> Tensor:
        """Take the first step of an image: the velocity [1, S, 64]."""
        return self.step_of(size, 1)

    @torch.inference_mode()
    def step_of(self, size: Size, num_rows: int) -> Tensor:
        """Take the first step of so many images: the velocities [B, S, 64]."""
        rows = [self.begin(size) for _ in range(num_rows)]
        step_rows(self.backbone, rows, loras={})
        return torch.stack([row.velocity for row in rows if row.velocity is not None])

    def image(self, size: Size) -> Tensor:
        return self.finish([self.begin(size)])

    def finish(self, rows: list[PaintRow]) -> Tensor:
        while not rows[0].is_done:
            step_rows(self.backbone, rows, loras={})
        return torch.stack([row.patches for row in rows])

    @torch.inference_mode()
    def begin(self, size: Size, is_cached: bool = False) -> PaintRow:
        given, case = size.inputs, size.case
        width, height = size.pixels
        dtype = self.backbone.img_in.weight.dtype
        return PaintRow(
            width=width,
            height=height,
            sigmas=case.schedule.sigmas(case.num_steps, given.patches.shape[1]).tolist(),
            conditioning=Conditioning(given.text[0].to(dtype), given.pooled[0].to(dtype)),
            guidance=case.guidance_scale,
            classifier_free=None,
            loras={},
            rotations=self.backbone.rotations(given.image_ids, given.text_ids)[0],
            patches=given.patches[0].float(),
            caches=[BlockCache(CACHE_THRESHOLD)] if is_cached else [],
        )


def measure_flux(bench: Bench, case: FluxCase, workload: Workload, dtype: torch.dtype) -> None:
    """Report all rows of one preset."""

    def build() -> FluxBackbone:
        return FluxBackbone(**case.config, dtype=dtype)  # type: ignore[arg-type]

    backbone = random_module(build, bench.device, dtype)
    ladder = Ladder(bench, backbone, workload)
    sizes = [_measure_eager(ladder, case, pixels) for pixels in case.sizes]
    peer = diffusers_transformer(backbone) if find_spec("diffusers") else None
    _measure_diffusers(bench, peer, sizes, workload, "eager")
    if _compile(ladder, sizes[0]):
        for size in sizes:
            ladder.measure(size, "compiled")
            ladder.measure_cached(size, "compiled")
            ladder.measure_graphs(size, "compiled")
    _measure_diffusers(bench, peer, sizes, workload, "compiled")
    del peer
    execution = "compiled"
    if _turn_float8_on(ladder, case) and _compile(ladder, sizes[0]):
        execution = "float8 compiled"
        for size in sizes:
            ladder.measure(size, execution)
            ladder.measure_cached(size, execution)
            ladder.measure_graphs(size, execution)
    for size in sizes:
        for num_images in workload.in_flight:
            ladder.measure_in_flight(size, num_images, execution)


def name(case: FluxCase, size: tuple[int, int]) -> str:
    return f"{case.name} {size[0]}x{size[1]}"


def image_subject(case: FluxCase, size: tuple[int, int], execution: str) -> Subject:
    return Subject(f"{name(case, size)}, denoise of {case.num_steps} steps", execution=execution)


def _measure_eager(ladder: Ladder, case: FluxCase, pixels: tuple[int, int]) -> Size:
    """Report eager execution, and a step with every attention kernel."""
    size = ladder.measure(inputs_of(ladder, case, pixels), "eager")
    for kernel in KERNELS:
        ladder.bench.measure(
            replace(size.step_subject, attention=kernel),
            _with_kernel(partial(ladder.step, size), kernel),
            ladder.workload.repetitions,
            size.step,
        )
    return size


def _compile(ladder: Ladder, size: Size) -> bool:
    """Compile as `apply` does, for all sizes; False where the compiler cannot, or no time is."""
    blocks = list(repeated_blocks(ladder.backbone))
    return ladder.bench.do_once(
        Subject(f"{size.case.name}, compile"),
        lambda: compile_modules(
            blocks, partial(ladder.step_of, size), ladder.workload.compile_backend
        ),
    )


def _turn_float8_on(ladder: Ladder, case: FluxCase) -> bool:
    """Round the blocks' weights; False where the device has no such products."""
    backbone = ladder.backbone.to(torch.bfloat16)
    try:
        float8_products.check_products(ladder.bench.device, torch.bfloat16)
    except float8_products.Float8Error as error:
        ladder.bench.skip(Subject(f"{case.name}, float8"), said(error))
        return False
    torch.compiler.reset()
    blocks = list(repeated_blocks(backbone))
    undo_compiling(blocks)
    float8_products.turn_on(float8_products.layers_for(blocks))
    return True


def _measure_diffusers(
    bench: Bench, peer: nn.Module | None, sizes: list[Size], workload: Workload, execution: str
) -> None:
    if peer is None:
        bench.skip(
            Subject("flux", implementation="diffusers", execution=execution),
            "diffusers is not installed",
        )
        return
    if execution == "compiled":
        compile_blocks(peer, workload.compile_backend)
    for size in sizes:
        step = replace(size.step_subject, implementation="diffusers", execution=execution)
        run = partial(_diffusers_step, peer, size)
        bench.measure(step, run, workload.repetitions, size.step)


def _diffusers_step(peer: nn.Module, size: Size) -> Tensor:
    given, case = size.inputs, size.case
    device = given.text.device
    guidance = None
    if case.guidance_scale is not None:
        guidance = torch.full((1,), case.guidance_scale, device=device)
    sigma = case.schedule.sigmas(case.num_steps, given.patches.shape[1])[:1]
    velocity: Tensor = peer(
        hidden_states=given.patches,
        img_ids=given.image_ids[0],
        encoder_hidden_states=given.text,
        txt_ids=given.text_ids[0],
        pooled_projections=given.pooled,
        timestep=sigma.to(device),
        guidance=guidance,
        return_dict=False,
    )[0]
    return velocity


def inputs_of(ladder: Ladder, case: FluxCase, pixels: tuple[int, int]) -> Size:
    """Make the inputs of one image size."""
    inputs = _inputs(ladder.backbone, case, *pixels)
    num_patches = inputs.patches.shape[1]
    return Size(
        case, pixels, flops.flux_step(ladder.backbone, num_patches, case.num_text_tokens), inputs
    )


def _inputs(backbone: FluxBackbone, case: FluxCase, width: int, height: int) -> Inputs:
    weight = backbone.img_in.weight
    ids = latents.image_ids(width, height).to(weight.device)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=weight.device, dtype=weight.dtype)

    text = random(1, case.num_text_tokens, backbone.txt_in.in_features)
    pooled = random(1, backbone.vector_in.in_layer.in_features)
    patches = random(1, ids.shape[1], backbone.input_channels)
    text_ids = torch.zeros(1, case.num_text_tokens, 3, device=weight.device)
    return Inputs(patches, ids, text, text_ids, pooled)


def _with_kernel(run: Callable[[], Tensor], kernel: str) -> Callable[[], Tensor]:
    def with_kernel() -> Tensor:
        with sdpa_kernel(KERNELS[kernel]):
            return run()

    return with_kernel


def _kept(expected: Tensor | None, measured: Measured) -> Tensor | None:
    return measured.output if expected is None else expected


def diffusers_transformer(backbone: FluxBackbone) -> nn.Module:
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
