"""What surrounds the Flux backbone: T5-XXL, CLIP-L and the autoencoder's decoder, random weights.

All three are transformers' and diffusers', as the pipeline runs them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from benchmarks.random_modules import random_module
from benchmarks.rows import Bench, Subject
from benchmarks.workloads import StageSizes, Workload
from models.execution.compiled_blocks import compile_modules
from models.flux.latents import LATENT_CHANNELS, PIXELS_PER_LATENT

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

T5_VOCABULARY, CLIP_VOCABULARY, CLIP_TOKENS = 32_128, 49_408, 77


def measure_text_encoders(bench: Bench, workload: Workload, dtype: torch.dtype) -> None:
    """Report one row per text length: both encoders on token ids, without tokenizing."""
    lengths = sorted({case.num_text_tokens for case in workload.flux})
    if not find_spec("transformers"):
        bench.skip(Subject("text encode"), "transformers is not installed")
        return
    t5 = random_module(lambda: _t5(workload.stages), bench.device, dtype)
    clip = random_module(lambda: _clip(workload.stages), bench.device, dtype)
    clip_ids = torch.randint(CLIP_VOCABULARY, (1, CLIP_TOKENS), device=bench.device)
    for length in lengths:
        t5_ids = torch.randint(T5_VOCABULARY, (1, length), device=bench.device)

        def encode(t5_ids: Tensor = t5_ids) -> Tensor:
            clip(input_ids=clip_ids)
            features: Tensor = t5(input_ids=t5_ids).last_hidden_state
            return features

        bench.measure(text_subject(length), encode, workload.repetitions)


def measure_decoder(bench: Bench, workload: Workload, dtype: torch.dtype) -> None:
    """Report one row per image size."""
    if not find_spec("diffusers"):
        bench.skip(Subject("decode"), "diffusers is not installed")
        return
    decoder = random_module(lambda: _autoencoder(workload.stages), bench.device, dtype)
    sizes = sorted({size for case in workload.flux for size in case.sizes})
    given = {size: _latents(size, bench.device, dtype) for size in sizes}

    @torch.inference_mode()
    def decode(latents: Tensor) -> Tensor:
        images: Tensor = decoder.decode(latents).sample
        return images

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
    decoder.to(memory_format=torch.channels_last)
    measure("channels last")
    if bench.do_once(Subject("decode, compile"), compile_decoder):
        measure("compiled")


def _latents(size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    width, height = size
    shape = (1, LATENT_CHANNELS, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
    return torch.randn(shape, device=device, dtype=dtype)


def text_subject(num_tokens: int) -> Subject:
    return Subject(f"text encode, {num_tokens} tokens", implementation="transformers")


def decode_subject(width: int, height: int) -> Subject:
    return Subject(f"decode {width}x{height}", implementation="diffusers")


def _t5(sizes: StageSizes) -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    width = sizes.t5_width
    config = T5Config(
        vocab_size=T5_VOCABULARY,
        d_model=width,
        d_kv=64,
        num_heads=max(1, width // 64),
        d_ff=width * 5 // 2,
        num_layers=sizes.t5_layers,
        feed_forward_proj="gated-gelu",
    )
    module: nn.Module = T5EncoderModel(config)
    return module


def _clip(sizes: StageSizes) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY,
        hidden_size=sizes.clip_width,
        intermediate_size=4 * sizes.clip_width,
        num_hidden_layers=sizes.clip_layers,
        num_attention_heads=max(1, sizes.clip_width // 64),
    )
    module: nn.Module = CLIPTextModel(config)
    return module


def _autoencoder(sizes: StageSizes) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
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
