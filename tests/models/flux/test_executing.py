"""A pipeline run by levers paints what it paints without, or nearly, and says what is off."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch.fx import GraphModule

from models.execution.compiled_blocks import compile_modules
from models.execution.execution import Execution
from models.flux.rows import PaintRow
from models.flux.text_to_image import Negative, TextToImage
from tests.models.execution.tiny_flux import tiny_flux, velocity
from tests.models.flux.loops import PROMPTS, UNWANTED, Pipelines


@pytest.fixture
def pipeline(pipelines: Pipelines) -> TextToImage:
    return TextToImage.from_preset(pipelines["dev"][1])


def begin(
    pipeline: TextToImage, seed: int, num_steps: int = 8, is_guided: bool = False
) -> PaintRow:
    negative = Negative(pipeline.encode([UNWANTED]), 3.0) if is_guided else None
    text = pipeline.encode([PROMPTS[seed % 2]])
    [row] = pipeline.begin(text, [seed], 64, 96, num_steps, 3.5, negative=negative)
    return row


def paint(pipeline: TextToImage, rows: list[PaintRow]) -> list[PaintRow]:
    while left := [row for row in rows if not row.is_done]:
        pipeline.step(left)
    return rows


def test_convolutions_channels_last_decode_the_same(
    pipeline: TextToImage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "models.execution")
    patches = torch.randn(1, 24, 64)
    expected = pipeline.decode(patches, 64, 96).astype(int)
    pipeline.execute(Execution(channels_last=True))
    assert abs(pipeline.decode(patches, 64, 96) - expected).max() <= 1
    assert [each.getMessage() for each in caplog.records] == ["event=lever_on lever=channels_last"]


def test_too_little_memory_for_channels_last_is_logged(
    pipeline: TextToImage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(**_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(pipeline.autoencoder, "to", out_of_memory)
    pipeline.execute(Execution(channels_last=True))
    assert [each.getMessage() for each in caplog.records] == [
        "event=lever_off lever=channels_last reason='OutOfMemoryError: out of memory'"
    ]


def test_each_block_is_compiled_whole_and_for_every_size() -> None:
    backbone, num_runs = tiny_flux(depth=1), 0

    def backend(graph: GraphModule, _: object) -> Callable[..., object]:
        def run(*inputs: object) -> object:
            nonlocal num_runs
            num_runs += 1
            return graph(*inputs)

        return run

    blocks = [backbone.double_blocks[0], backbone.single_blocks[0]]
    sizes = (600, 40)  # patches: of which the larger one was compiled
    expected = [velocity(backbone, num_patches=size) for size in sizes]
    try:
        compile_modules(
            blocks, lambda n: velocity(backbone, n, sizes[0]), backend, num_rows=(1,)  # type: ignore[arg-type]
        )  # fmt: skip
        num_runs = 0
        compiled = [velocity(backbone, num_patches=size) for size in sizes]
    finally:
        torch.compiler.reset()
    assert num_runs == len(blocks) * len(sizes)  # none ran eagerly, and none in two parts
    for one, other in zip(compiled, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_a_cache_with_threshold_0_paints_the_same_bit_for_bit(pipeline: TextToImage) -> None:
    [expected] = paint(pipeline, [begin(pipeline, 1)])
    pipeline.execute(Execution(block_cache=0.0))
    [row] = paint(pipeline, [begin(pipeline, 1)])
    assert torch.equal(row.patches, expected.patches)


def test_cached_rows_skip_steps_and_paint_the_same_alone_and_in_company(
    pipeline: TextToImage,
) -> None:
    [exact] = paint(pipeline, [begin(pipeline, 1)])
    pipeline.execute(Execution(block_cache=0.3))
    wishes = ((1, 8, False), (2, 5, True), (4, 8, False))
    alone = [paint(pipeline, [begin(pipeline, *wish)])[0] for wish in wishes]
    together = paint(pipeline, [begin(pipeline, *wish) for wish in wishes])
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.patches, other.patches, rtol=0, atol=2e-5)
        assert [c.num_skipped for c in one.caches] == [c.num_skipped for c in other.caches]
    assert 0 < alone[0].caches[0].num_skipped < 8
    error = (alone[0].patches - exact.patches).norm() / exact.patches.norm()
    assert 0 < error < 0.3


def test_a_cache_is_off_where_there_are_loras(
    pipeline: TextToImage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline._loras, "of_backbone", {"ink": 1.0})
    pipeline.execute(Execution(block_cache=0.1))
    assert [each.getMessage() for each in caplog.records] == [
        "event=lever_off lever=block_cache reason='the model has LoRAs'"
    ]
