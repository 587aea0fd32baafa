"""The GPU benchmark: its operation counts, and the whole command on its tiny shapes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops, gpu, gpu_cold_start, gpu_encoders, gpu_flux, gpu_stages
from benchmarks.rows import Bench, Row
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
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[gpu.Report, Path]]:
    file = tmp_path_factory.mktemp("results") / "gpu.json"
    case = replace(TINY.flux[0], sizes=((64, 32),))
    with pytest.MonkeyPatch.context() as patch:
        # compilers that leave blocks as they are: to trace all of them takes half a minute
        for module in (gpu_flux, gpu_encoders):
            patch.setattr(module, "compile_blocks", lambda *_: None)
        for module in (gpu_flux, gpu_encoders, gpu_stages):
            patch.setattr(module, "compile_modules", lambda *_, **__: None)
        patch.setattr(gpu_cold_start, "_start", lambda _: 1.0)  # and so do two processes
        yield gpu.run(replace(TINY, repetitions=1, flux=(case,)), CPU, file), file


def test_every_row_of_the_tiny_shapes_is_measured_or_says_why_not(
    measured: tuple[gpu.Report, Path],
) -> None:
    report, file = measured
    reasons = {
        (row.subject.attention or row.subject.execution): row.error
        for row in report.rows
        if row.error is not None
    }
    assert reasons.keys() == {
        "cudnn", "efficient", "compiled, CUDA graph", "float8 compiled, CUDA graph",
        "float8 compiled",
    }  # fmt: skip
    assert reasons["compiled, CUDA graph"] == "no CUDA"
    assert reasons["float8 compiled"].startswith("the model is in torch.float32")  # the encoders
    assert [image.execution for image in report.images] == ["eager", "compiled", "float8 compiled"]
    written = json.loads(file.read_text())
    assert len(written["rows"]) == len(report.rows)
    assert written["machine"]["packages"]["torch"] == torch.__version__


def test_what_begins_after_the_minutes_is_left_out_and_said() -> None:
    report = gpu.run(replace(TINY, repetitions=1), CPU, None, minutes=0)
    assert {row.error for row in report.rows} == {"left out: the time is over"}
    assert {row.subject.case for row in report.rows} > {"flux tiny", "vit", "cold start"}


def test_a_model_that_cannot_be_built_is_a_row_and_the_next_ones_are_measured() -> None:
    impossible = replace(TINY.flux[0], config=TINY.flux[0].config | {"num_heads": 3})
    rows: list[Row] = []
    bench = Bench(CPU, 1.0, rows.append)
    gpu.measure_sections(
        bench, replace(TINY, flux=(impossible,)), torch.float32, ["flux tiny", "decode"]
    )
    assert "does not divide by num_heads 3" in (rows[0].error or "")
    assert rows[1].median_s is not None


def test_every_way_to_run_a_step_gives_one_answer(measured: tuple[gpu.Report, Path]) -> None:
    differences = {
        (row.subject.implementation, row.subject.execution): row.difference
        for row in measured[0].rows
        if row.difference is not None and row.subject.case.endswith("step")
    }
    in_float8 = differences.pop(("triptych", "float8 compiled"))
    assert differences.keys() == {
        (implementation, execution)
        for implementation in ("triptych", "diffusers")
        for execution in ("eager", "compiled")
    }
    assert max(differences.values()) < 1e-5
    assert 1e-3 < in_float8 < 0.1


def test_the_encoders_give_one_answer_by_every_lever(measured: tuple[gpu.Report, Path]) -> None:
    rows = [row for row in measured[0].rows if row.subject.case.startswith(("vit", "f_net"))]
    ours = [row for row in rows if row.difference is not None]
    assert {row.subject.execution for row in ours} == {"compiled"}
    assert max(row.difference or 0.0 for row in ours) < 1e-5
