"""ViT and FNet of random weights: images and texts a second, beside transformers'."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks import flops
from benchmarks.random_modules import random_module
from benchmarks.regional import compile_blocks
from benchmarks.rows import Bench, Subject
from benchmarks.workloads import Workload
from models.execution import float8_products
from models.execution.compiled_blocks import compile_modules, repeated_blocks, undo_compiling
from models.execution.cuda_graphs import GraphedCall
from models.fnet.backbone import FNetBackbone
from models.vit.backbone import ViTBackbone


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
    """Measure every contestant at every batch size, by one lever after the other."""
    inputs = cache(inputs)  # the same for every lever, so that outputs can be compared
    for contestant in contestants:
        measure = partial(_measure_batches, bench, workload, subject, contestant, inputs)
        expected = measure("eager", {})
        if contestant.implementation != "triptych":
            compile_blocks(contestant.module, workload.compile_backend)
            measure("compiled", expected)
            continue
        if _compile(bench, workload, subject, contestant, inputs):
            measure("compiled", expected)
        _measure_graphs(bench, measure, subject, contestant, expected)
        if _turn_float8_on(bench, subject, contestant) and _compile(
            bench, workload, subject, contestant, inputs
        ):
            measure("float8 compiled", expected)
    if len(contestants) == 1:
        bench.skip(replace(subject, implementation="transformers"), "transformers is not installed")


def _measure_batches(
    bench: Bench,
    workload: Workload,
    subject: Subject,
    contestant: Contestant,
    inputs: Callable[[int], Tensor],
    execution: str,
    expected: Mapping[int, Tensor | None],
) -> dict[int, Tensor | None]:
    """Report one row per batch size; give the outputs."""
    outputs = {}
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
        row = bench.measure(measured, run, workload.repetitions, expected.get(batch))
        outputs[batch] = row.output
    return outputs


def _compile(
    bench: Bench,
    workload: Workload,
    subject: Subject,
    contestant: Contestant,
    inputs: Callable[[int], Tensor],
) -> bool:
    """Compile as `apply` does, for all sizes."""
    blocks = list(repeated_blocks(contestant.module))
    call = torch.inference_mode()(lambda num_rows: contestant.call(inputs(num_rows)))
    return bench.do_once(
        replace(subject, case=f"{subject.case}, compile"),
        lambda: compile_modules(blocks, call, workload.compile_backend),
    )


def _measure_graphs(
    bench: Bench,
    measure: Callable[[str, Mapping[int, Tensor | None]], object],
    subject: Subject,
    contestant: Contestant,
    expected: Mapping[int, Tensor | None],
) -> None:
    execution, module = "compiled, CUDA graph", contestant.module
    if bench.device.type != "cuda":
        bench.skip(replace(subject, execution=execution), "no CUDA")
        return
    graphed = GraphedCall(module, module.forward)
    setattr(module, "forward", graphed)  # noqa: B010  # mypy allows no method this
    try:
        measure(execution, expected)
    finally:
        delattr(module, "forward")  # the class's own again


def _turn_float8_on(bench: Bench, subject: Subject, contestant: Contestant) -> bool:
    blocks = list(repeated_blocks(contestant.module))
    layers = float8_products.layers_for(blocks)
    try:
        dtype = float8_products.dtype_of(layers)
        float8_products.check_products(bench.device, dtype)
    except float8_products.Float8Error as error:
        bench.skip(replace(subject, execution="float8 compiled"), str(error))
        return False
    torch.compiler.reset()
    float8_products.turn_on(layers)
    undo_compiling(blocks)
    return True


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
