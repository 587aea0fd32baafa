"""The shapes that the GPU benchmark runs: the published models', and tiny ones to check itself."""

from dataclasses import dataclass, field

from models.flux.sampling import Schedule
from models.presets import get_preset


def published(name: str) -> dict[str, object]:
    """Give the configuration of a built-in preset."""
    config = get_preset(name).backbone_config
    assert config is not None, f"{name} is bundled and says it in its directory: this is a bug"
    return dict(config)


TINY_FLUX: dict[str, object] = {
    "hidden_size": 64,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": (8, 12, 12),
    "text_shape": (None, 32),
    "y_shape": (16,),
}
TINY_VIT: dict[str, object] = {
    "image_shape": (32, 32, 3),
    "num_layers": 2,
    "hidden_dim": 48,
    "mlp_dim": 96,
}
TINY_FNET: dict[str, object] = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "hidden_dim": 48,
    "intermediate_dim": 96,
}


@dataclass(frozen=True, slots=True)
class FluxCase:
    """One preset: its backbone and how it is used. Sizes in pixels."""

    name: str
    config: dict[str, object]
    num_steps: int
    num_text_tokens: int
    guidance_scale: float | None
    schedule: Schedule
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class StageSizes:
    """The text encoders and the autoencoder around the backbone, by what decides their cost."""

    t5_layers: int
    t5_width: int
    clip_layers: int
    clip_width: int
    autoencoder_widths: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Workload:
    flux: tuple[FluxCase, ...]
    stages: StageSizes
    vit_config: dict[str, object]
    fnet_config: dict[str, object]
    batch_sizes: tuple[int, ...]  # of ViT and FNet
    in_flight: tuple[int, ...]  # images in one forward of Flux
    fnet_tokens: int
    matrix_products: tuple[tuple[int, int, int], ...]
    repetitions: int
    compile_backend: str
    records_s: dict[str, float] = field(default_factory=dict)  # seconds an image, of others


FULL = Workload(
    flux=(
        FluxCase(
            name="flux dev",
            config=published("flux_dev"),
            num_steps=28,
            num_text_tokens=512,
            guidance_scale=3.5,
            schedule=Schedule(use_dynamic_shifting=True, shift=3.0),
            sizes=((1024, 1024), (512, 512)),
        ),
        FluxCase(
            name="flux schnell",
            config=published("flux_schnell"),
            num_steps=4,
            num_text_tokens=256,
            guidance_scale=None,
            schedule=Schedule(use_dynamic_shifting=False, shift=1.0),
            sizes=((1024, 1024), (512, 512)),
        ),
    ),
    stages=StageSizes(24, 4096, 12, 768, (128, 256, 512, 512)),
    vit_config=published("vit_base_patch16_224_imagenet"),
    fnet_config=published("f_net_base_en"),
    batch_sizes=(1, 64, 256),
    in_flight=(1, 2, 4, 8),
    fnet_tokens=512,
    matrix_products=((8192, 8192, 8192), (4608, 3072, 12288), (4608, 12288, 3072)),
    repetitions=10,
    compile_backend="inductor",
    # https://github.com/sgl-project/sglang/pull/19673; the floor is 74.4 TFLOP a step at the 790
    # TFLOP/s that an H200 sustains in bfloat16, with text encoders and decoder
    records_s={
        "flux dev 1024x1024, H200, diffusers eager": 5.58,
        "flux dev 1024x1024, H200, diffusers compiled": 4.32,
        "flux dev 1024x1024, H200, SGLang compiled, FlashAttention 3": 3.50,
        "flux dev 1024x1024, H200, the floor": 2.66,
    },
)
TINY = Workload(
    flux=(
        FluxCase(
            name="flux tiny",
            config=published("flux_dev") | TINY_FLUX,
            num_steps=8,
            num_text_tokens=8,
            guidance_scale=3.5,
            schedule=Schedule(use_dynamic_shifting=True, shift=3.0),
            sizes=((64, 64), (64, 32)),
        ),
    ),
    stages=StageSizes(1, 32, 1, 16, (32, 32, 32, 32)),
    vit_config=published("vit_base_patch16_224_imagenet") | TINY_VIT,
    fnet_config=published("f_net_base_en") | TINY_FNET,
    batch_sizes=(2,),
    in_flight=(2,),
    fnet_tokens=16,
    matrix_products=((256, 256, 256),),
    repetitions=2,
    compile_backend="eager",  # captures whole blocks as Inductor would; makes no kernels
)
