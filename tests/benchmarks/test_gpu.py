"""The GPU benchmark: its operation counts, and the whole command on its tiny shapes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops, gpu
from benchmarks.workloads import FULL, TINY, FluxCase
from models import FluxBackbone, FNetBackbone, ViTBackbone

CPU = torch.device("cpu")


def counted(module: nn.Module, **inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module.eval()(**inputs)
    return int(counter.get_total_flops())


def flux_on_meta(case: FluxCase) -> FluxBackbone:
    with torch.device("meta"):
        return FluxBackbone(**case.config)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [*FULL.flux, *TINY.flux], ids=lambda case: str(case.name))
def test_the_operations_of_a_flux_step_are_those_that_torch_counts(case: FluxCase) -> None:
    backbone, num_patches = flux_on_meta(case), 64
    with torch.device("meta"):
        expected = counted(
            backbone,
            image=torch.empty(1, num_patches, backbone.input_channels),
            image_ids=torch.empty(1, num_patches, 3),
            text=torch.empty(1, case.num_text_tokens, backbone.txt_in.in_features),
            text_ids=torch.empty(1, case.num_text_tokens, 3),
            y=torch.empty(1, backbone.vector_in.in_layer.in_features),
            timesteps=torch.empty(1),
            guidance=torch.empty(1),
        )
    assert flops.flux_step(backbone, num_patches, case.num_text_tokens) == expected


def test_a_step_of_flux_dev_at_1024_is_known_to_take_74_teraflop() -> None:
    count = flops.flux_step(flux_on_meta(FULL.flux[0]), num_patches=4096, num_text_tokens=512)
    assert count / 1e12 == pytest.approx(74.4, abs=0.05)


def test_the_operations_of_a_vit_are_those_that_torch_counts() -> None:
    with torch.device("meta"):
        backbone = ViTBackbone(**FULL.vit_config)  # type: ignore[arg-type]
        expected = counted(backbone, images=torch.empty(1, 224, 224, 3))
    assert flops.vit(backbone) == expected


def test_the_operations_of_an_fnet_are_those_that_torch_counts() -> None:
    with torch.device("meta"):
        backbone = FNetBackbone(**FULL.fnet_config)  # type: ignore[arg-type]
        ids = torch.empty(1, 512, dtype=torch.long)
        expected = counted(backbone, token_ids=ids, segment_ids=ids)
    assert flops.fnet(backbone, num_tokens=512) == expected


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[gpu.Report, Path]:
    file = tmp_path_factory.mktemp("results") / "gpu.json"
    case = replace(TINY.flux[0], sizes=((64, 32),))
    return gpu.run(replace(TINY, repetitions=1, flux=(case,)), CPU, file), file


def test_every_row_of_the_tiny_shapes_is_measured_and_written(
    measured: tuple[gpu.Report, Path],
) -> None:
    report, file = measured
    failed = [row for row in report.rows if row.error is not None]
    assert {row.subject.attention for row in failed} == {"cudnn", "efficient"}  # none on a CPU
    assert [image.execution for image in report.images] == ["eager", "compiled"]
    written = json.loads(file.read_text())
    assert len(written["rows"]) == len(report.rows)
    assert written["machine"]["packages"]["torch"] == torch.__version__


def test_a_model_that_cannot_be_built_is_a_row_and_the_next_ones_are_measured() -> None:
    impossible = replace(TINY.flux[0], config=TINY.flux[0].config | {"num_heads": 3})
    report = gpu.run(replace(TINY, repetitions=1, flux=(impossible,)), CPU, None)
    rows = {row.subject.case: row for row in report.rows}
    assert "does not divide by num_heads 3" in (rows["flux tiny"].error or "")
    assert rows["vit_b_16, float32, batch 2"].median_s is not None


def test_every_way_to_run_a_step_gives_one_answer(measured: tuple[gpu.Report, Path]) -> None:
    steps = [row for row in measured[0].rows if row.difference is not None]
    ways = {(row.subject.implementation, row.subject.execution) for row in steps}
    assert ways == {(a, b) for a in ("triptych", "diffusers") for b in ("eager", "compiled")}
    assert max(row.difference or 0.0 for row in steps) < 1e-5
