"""What surrounds the Flux backbone: T5-XXL, CLIP-L and the autoencoder's decoder, random weights.

Ours, and beside them those of transformers and diffusers where they are installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.random_modules import random_module
from benchmarks.rows import Bench, Subject
from benchmarks.workloads import StageSizes, Workload
from models.execution.compiled_blocks import compile_modules
from models.flux.autoencoder import Autoencoder
from models.flux.clip import ClipTextEncoder
from models.flux.latents import LATENT_CHANNELS, PIXELS_PER_LATENT
from models.flux.part_configs import AutoencoderConfig, ClipConfig, T5Config
from models.flux.t5 import T5Encoder

T5_VOCABULARY, CLIP_VOCABULARY, CLIP_TOKENS = 32_128, 49_408, 77

# Token ids of T5 and of CLIP to features
TextEncode = Callable[[Tensor, Tensor], Tensor]


def measure_text_encoders(bench: Bench, workload: Workload, dtype: torch.dtype) -> None:
    """Report one row per text length: both encoders on token ids, without tokenizing."""
    _measure_text(bench, workload, "triptych", _our_text_encode(bench, workload.stages, dtype))
    if find_spec("transformers"):
        encode = _their_text_encode(bench, workload.stages, dtype)
        _measure_text(bench, workload, "transformers", encode)


def _measure_text(
    bench: Bench, workload: Workload, implementation: str, encode: TextEncode
) -> None:
    clip_ids = torch.randint(CLIP_VOCABULARY, (1, CLIP_TOKENS), device=bench.device)
    for length in sorted({case.num_text_tokens for case in workload.flux}):
        t5_ids = torch.randint(T5_VOCABULARY, (1, length), device=bench.device)
        subject = replace(text_subject(length), implementation=implementation)
        bench.measure(subject, partial(encode, t5_ids, clip_ids), workload.repetitions)


def measure_decoder(bench: Bench, workload: Workload, dtype: torch.dtype) -> None:
    """Report one row per image size and execution."""
    decoder = random_module(lambda: Autoencoder(_config(workload.stages)), bench.device, dtype)
    sizes = sorted({size for case in workload.flux for size in case.sizes})
    given = {size: _latents(size, bench.device, dtype) for size in sizes}
    decode = torch.inference_mode()(decoder.decode)

    def measure(execution: str) -> None:
        for size in sizes:
            outputs[size] = bench.measure(
                replace(decode_subject(*size), execution=execution),
                partial(decode, given[size]),
                workload.repetitions,
                outputs.get(size),
            ).output

    def compile_decoder() -> None:
        compile_modules(
            [decoder.decoder],
            lambda _: decode(given[sizes[0]]),
            workload.compile_backend,
            num_rows=(1,),
        )

    outputs: dict[tuple[int, int], Tensor | None] = {}
    measure("eager")
    decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    measure("channels last")
    if bench.do_once(Subject("decode, compile"), compile_decoder):
        measure("compiled")
    if find_spec("diffusers"):
        theirs = _their_decode(bench, workload.stages, dtype)
        for size in sizes:
            subject = replace(decode_subject(*size), implementation="diffusers")
            bench.measure(subject, partial(theirs, given[size]), workload.repetitions)


def _latents(size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    width, height = size
    shape = (1, LATENT_CHANNELS, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
    return torch.randn(shape, device=device, dtype=dtype)


def text_subject(num_tokens: int) -> Subject:
    return Subject(f"text encode, {num_tokens} tokens")


def decode_subject(width: int, height: int) -> Subject:
    return Subject(f"decode {width}x{height}")


def _our_text_encode(bench: Bench, sizes: StageSizes, dtype: torch.dtype) -> TextEncode:
    t5 = random_module(
        lambda: T5Encoder(T5Config.model_validate(_t5_sizes(sizes))), bench.device, dtype
    )
    clip = random_module(
        lambda: ClipTextEncoder(ClipConfig.model_validate(_clip_sizes(sizes))), bench.device, dtype
    )

    @torch.inference_mode()
    def encode(t5_ids: Tensor, clip_ids: Tensor) -> Tensor:
        clip(clip_ids)
        features: Tensor = t5(t5_ids)
        return features

    return encode


def _their_text_encode(bench: Bench, sizes: StageSizes, dtype: torch.dtype) -> TextEncode:
    import transformers

    t5_config = transformers.T5Config(**_t5_sizes(sizes))
    clip_config = transformers.CLIPTextConfig(**_clip_sizes(sizes))
    t5 = random_module(lambda: transformers.T5EncoderModel(t5_config), bench.device, dtype)
    clip = random_module(lambda: transformers.CLIPTextModel(clip_config), bench.device, dtype)

    @torch.inference_mode()
    def encode(t5_ids: Tensor, clip_ids: Tensor) -> Tensor:
        clip(input_ids=clip_ids)
        features: Tensor = t5(input_ids=t5_ids).last_hidden_state
        return features

    return encode


def _their_decode(
    bench: Bench, sizes: StageSizes, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    from diffusers import AutoencoderKL

    config = _config(sizes).model_dump(exclude={"class_name"})
    decoder = random_module(lambda: AutoencoderKL(**config), bench.device, dtype)

    @torch.inference_mode()
    def decode(latents: Tensor) -> Tensor:
        images: Tensor = decoder.decode(latents).sample
        return images

    return decode


def _t5_sizes(sizes: StageSizes) -> dict[str, object]:
    return {
        "vocab_size": T5_VOCABULARY,
        "d_model": sizes.t5_width,
        "d_kv": 64,
        "num_heads": max(1, sizes.t5_width // 64),
        "d_ff": sizes.t5_width * 5 // 2,
        "num_layers": sizes.t5_layers,
        "feed_forward_proj": "gated-gelu",
    }


def _clip_sizes(sizes: StageSizes) -> dict[str, object]:
    return {
        "vocab_size": CLIP_VOCABULARY,
        "hidden_size": sizes.clip_width,
        "intermediate_size": 4 * sizes.clip_width,
        "num_hidden_layers": sizes.clip_layers,
        "num_attention_heads": max(1, sizes.clip_width // 64),
    }


def _config(sizes: StageSizes) -> AutoencoderConfig:
    return AutoencoderConfig(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=sizes.autoencoder_widths,
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
