"""ViT and FNet of random weights: images and texts a second, beside transformers'."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks import flops
from benchmarks.random_modules import random_module
from benchmarks.regional import compile_blocks
from benchmarks.rows import Bench, Subject
from benchmarks.workloads import Workload
from models import FNetBackbone, ViTBackbone


@dataclass(frozen=True, slots=True)
class Contestant:
    """A module and how it is called with a batch of inputs."""

    implementation: str
    module: nn.Module
    call: Callable[[Tensor], Tensor]


def measure_vit(bench: Bench, workload: Workload, dtype: torch.dtype) -> None:
    def build() -> ViTBackbone:
        return ViTBackbone(**workload.vit_config, dtype=dtype)  # type: ignore[arg-type]

    def images(batch: int) -> Tensor:
        return torch.randn((batch, *size), device=bench.device, dtype=dtype)

    backbone = random_module(build, bench.device, dtype)
    size = [side or 0 for side in backbone.image_shape]  # [H, W, C]: no side is None here
    contestants = [Contestant("triptych", backbone, lambda given: backbone(images=given))]
    if find_spec("transformers"):
        peer = random_module(lambda: _transformers_vit(backbone), bench.device, dtype)
        contestants.append(
            Contestant(
                "transformers",
                peer,
                lambda given: peer(given.permute(0, 3, 1, 2)).last_hidden_state,
            )
        )
    subject = Subject(f"vit_b_16, {_name(dtype)}", num_flop=flops.vit(backbone))
    _measure(bench, workload, subject, contestants, images)


def measure_fnet(bench: Bench, workload: Workload, dtype: torch.dtype) -> None:
    def build() -> FNetBackbone:
        return FNetBackbone(**workload.fnet_config, dtype=dtype)  # type: ignore[arg-type]

    def tokens(batch: int) -> Tensor:
        shape = (batch, workload.fnet_tokens)
        return torch.randint(backbone.vocabulary_size, shape, device=bench.device)

    def ours(token_ids: Tensor) -> Tensor:
        output: Tensor = backbone(token_ids=token_ids, segment_ids=torch.zeros_like(token_ids))[
            "sequence_output"
        ]
        return output

    backbone = random_module(build, bench.device, dtype)
    contestants = [Contestant("triptych", backbone, ours)]
    if find_spec("transformers"):
        peer = random_module(lambda: _transformers_fnet(backbone), bench.device, dtype)
        contestants.append(
            Contestant("transformers", peer, lambda given: peer(given).last_hidden_state)
        )
    case = f"f_net_base, {workload.fnet_tokens} tokens, {_name(dtype)}"
    subject = Subject(case, num_flop=flops.fnet(backbone, workload.fnet_tokens))
    _measure(bench, workload, subject, contestants, tokens)


def _measure(
    bench: Bench,
    workload: Workload,
    subject: Subject,
    contestants: list[Contestant],
    inputs: Callable[[int], Tensor],
) -> None:
    """Measure every contestant at every batch size: eager, then with its blocks compiled."""
    for contestant in contestants:
        for execution in ("eager", "compiled"):
            if execution == "compiled":
                compile_blocks(contestant.module, workload.compile_backend)
            for batch in workload.batch_sizes:
                measured = replace(
                    subject,
                    case=f"{subject.case}, batch {batch}",
                    implementation=contestant.implementation,
                    execution=execution,
                    num_items=batch,
                    num_flop=batch * (subject.num_flop or 0),
                )
                run = partial(contestant.call, inputs(batch))
                bench.measure(measured, run, workload.repetitions)
    if len(contestants) == 1:
        bench.skip(replace(subject, implementation="transformers"), "transformers is not installed")


def _transformers_vit(backbone: ViTBackbone) -> nn.Module:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=backbone.hidden_dim,
        num_hidden_layers=backbone.num_layers,
        num_attention_heads=backbone.num_heads,
        intermediate_size=backbone.mlp_dim,
        image_size=backbone.image_shape[0],
        patch_size=backbone.patch_size[0],
        attn_implementation="sdpa",
    )
    module: nn.Module = ViTModel(config, add_pooling_layer=False)
    return module


def _transformers_fnet(backbone: FNetBackbone) -> nn.Module:
    from transformers import FNetConfig, FNetModel

    config = FNetConfig(
        vocab_size=backbone.vocabulary_size,
        hidden_size=backbone.hidden_dim,
        num_hidden_layers=backbone.num_layers,
        intermediate_size=backbone.intermediate_dim,
    )
    module: nn.Module = FNetModel(config)
    return module


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
