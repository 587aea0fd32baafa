"""From an entry of the configuration to a pipeline and its card."""

import os
import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from models import ImageClassifier, TextToImage
from models.errors import PresetError
from models.flux.painting import PaintOptions
from models.layers.adapters import Linear
from models.layers.onednn import multiplies
from models.presets import get_preset
from worker.contract.jobs import Task
from worker.device_memory import Memory
from worker.device_plan import PlanError
from worker.image_limits import preset_limits
from worker.loading import Loaded, ModelLoader, Report
from worker.model_specs import ModelSpec, with_tasks

OPTIONS = PaintOptions(width=64, height=64, num_steps=2, guidance_scale=2.5)
BUNDLED = Path(__file__).parents[2] / "models" / "bundled"


def spec_of(name: str, handle: Path | None = None, **options: object) -> ModelSpec:
    fields = {"name": name, "handle": None if handle is None else str(handle), **options}
    [spec] = with_tasks([ModelSpec.model_validate(fields)])
    return spec


def load(spec: ModelSpec, device: str = "cpu", report: Report = print) -> Loaded[object]:
    loader = ModelLoader(device, Memory())
    loader.measure(spec, report, None)
    return loader.load(spec, report)


def test_a_built_in_preset_is_described_by_the_table_and_by_itself() -> None:
    reports: list[str] = []
    vit = load(spec_of("vit_shapes"), "cpu", reports.append)
    assert isinstance(vit.pipeline, ImageClassifier)
    assert vit.card.labels == vit.pipeline.labels
    assert (vit.card.task, vit.card.family) == (Task.CLASSIFY, "ViTBackbone")
    assert (vit.card.license, vit.card.source) == ("apache-2.0", None)
    assert vit.card.description == get_preset("vit_shapes").description
    assert vit.card.device == "cpu"
    assert vit.card.num_parameters > get_preset("vit_shapes").num_parameters  # and the head
    assert reports == ["loading"]


@pytest.mark.parametrize(("is_fast", "dtype"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("name", ["flux_shapes", "vit_shapes", "f_net_shapes"])
def test_the_cpu_multiplies_in_bfloat16_where_it_does_so_natively(
    name: str, is_fast: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not multiplies(torch.bfloat16):
        pytest.skip("this processor has no product in bfloat16 at all")
    monkeypatch.setattr("worker.precision.has_fast_bfloat16", lambda: is_fast)

    card = load(spec_of(name)).card

    assert card.dtype == dtype
    assert (card.memory_bytes < 4 * card.num_parameters) is is_fast  # the layers' weights shrink


@pytest.mark.parametrize(
    "said",
    [
        {"dtype": "float32"},
        {"placement": {"float8": True}},
        {"placement": {"num_streamed_blocks": 1}},
        {"execution": {"block_cache": 0.1}},
    ],
)
def test_a_flux_model_of_which_more_is_said_is_not_packed(
    said: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.precision.has_fast_bfloat16", lambda: True)

    loaded = load(spec_of("flux_shapes", None, **said))

    assert loaded.card.dtype == "float32"
    backbone = cast(TextToImage, loaded.pipeline).backbone
    assert not any(isinstance(each, Linear) and each.is_packed for each in backbone.modules())


def test_a_dtype_without_products_of_its_own_is_that_of_the_whole_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not multiplies(torch.bfloat16):
        pytest.skip("this processor has no product in bfloat16 at all")
    spec = spec_of("vit_shapes", dtype="bfloat16")
    packed = load(spec).card
    monkeypatch.setattr("worker.precision.multiplies", lambda dtype: dtype is not torch.bfloat16)

    whole = load(spec).card

    assert whole.dtype == packed.dtype == "bfloat16"
    assert whole.memory_bytes == 2 * whole.num_parameters
    assert whole.results_digest != packed.results_digest  # what is added up is rounded too


def test_what_the_operator_says_of_the_dtype_counts() -> None:
    cards = [
        load(spec_of("vit_shapes", dtype=dtype)).card
        for dtype in ("float32", "bfloat16", "float16")
    ]

    assert [card.dtype for card in cards] == ["float32", "bfloat16", "float16"]
    assert cards[0].memory_bytes == 4 * cards[0].num_parameters
    assert len({card.results_digest for card in cards}) == 3


@pytest.mark.parametrize("name", ["vit_shapes", "f_net_shapes"])
def test_int8_is_said_by_the_card_and_by_the_digest_of_results(name: str) -> None:
    if not multiplies(torch.int8):
        pytest.skip("this processor has no products in int8")
    cards = [load(spec_of(name, dtype=dtype)).card for dtype in ("float32", "bfloat16", "int8")]

    assert cards[2].dtype == "int8"
    assert cards[2].memory_bytes < cards[1].memory_bytes < cards[0].memory_bytes
    assert cards[2].num_parameters == cards[0].num_parameters
    assert len({card.results_digest for card in cards}) == 3


@pytest.mark.parametrize(
    ("device", "has_products", "message"),
    [
        ("cuda:7", True, "its device is cuda:7; dtype int8 is for cpu alone"),
        ("cpu", False, "dtype int8 needs a processor with AVX-512 VNNI"),
    ],
)
def test_int8_is_refused_where_it_would_be_slower(
    device: str, has_products: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.precision.multiplies", lambda _: has_products)
    spec = spec_of("vit_shapes", dtype="int8", device=device)

    with pytest.raises(PresetError, match=message):
        ModelLoader("cpu", Memory()).measure(spec, print, None)


def test_each_task_has_its_own_fields() -> None:
    f_net = load(spec_of("f_net_shapes"), "cpu", print).card
    assert (f_net.embedding_width, f_net.max_tokens) == (128, 512)
    assert (f_net.vocabulary_size, f_net.num_special_tokens) == (1200, 2)
    assert (f_net.labels, f_net.image_limits) == (None, None)
    flux = load(spec_of("flux_shapes"), "cpu", print).card
    assert flux.image_limits is not None
    of_preset = preset_limits("flux_shapes")
    assert flux.image_limits == of_preset.model_copy(
        update={"overlaps": flux.image_limits.overlaps}  # as this host's cores are
    )
    assert (flux.labels, flux.embedding_width, flux.max_tokens) == (None, None, None)


def test_a_directory_is_loaded_as_the_configuration_says(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "f_net_shapes", tmp_path / "mine")
    spec = spec_of("reader", tmp_path / "mine", dtype="bfloat16", device="cpu")
    card = load(spec, "cuda:7", print).card
    assert (card.name, card.task, card.dtype) == ("reader", Task.EMBEDDINGS, "bfloat16")
    assert card.license == "apache-2.0", "as its README says"
    (tmp_path / "mine" / "README.md").unlink()
    without = load(spec, "cpu", print).card
    assert without.license is None
    assert without.revision != card.revision


def test_a_budget_on_the_cpu_streams_nothing_from_where_the_rest_lies() -> None:
    spec = spec_of("flux_shapes")
    whole = ModelLoader("cpu", Memory()).measure(spec, print, 10**9)
    assert whole.host_bytes == 0
    assert whole.weights_bytes == pytest.approx(44_700_000, rel=0.01)
    tight = ModelLoader("cpu", Memory()).measure(spec, print, whole.weights_bytes)
    assert (tight.host_bytes, tight.weights_bytes < whole.weights_bytes) == (0, True)
    with pytest.raises(PlanError, match="the device is too small"):
        ModelLoader("cpu", Memory()).measure(spec, print, 10**7)


@pytest.mark.parametrize(
    ("name", "weights_mb", "work_mb"),
    [
        ("vit_shapes", 1.354, 4 * 16 * 8 * 101 * 96 / 1e6),
        ("f_net_shapes", 2.075, 4 * 16 * 8 * 512 * 128 / 1e6),
    ],
)
def test_a_small_model_needs_little(name: str, weights_mb: float, work_mb: float) -> None:
    need = ModelLoader("cpu", Memory(), max_rows=8).measure(spec_of(name), print, 10**9)
    assert need.weights_bytes / 1e6 == pytest.approx(weights_mb, abs=0.01)
    assert need.work_bytes / 1e6 == pytest.approx(work_mb)


def test_what_is_planned_is_loaded_and_told_to_the_api() -> None:
    spec = spec_of("flux_shapes")
    loader = ModelLoader("cpu", Memory(host_bytes=10**9))
    need = loader.measure(spec, print, 40_000_000)
    loaded = loader.load(spec, print)
    assert isinstance(loaded.pipeline, TextToImage)
    assert loaded.card.image_limits is not None
    assert loaded.card.image_limits.max_tokens_at_once is not None
    assert need.host_bytes > 0
    [image] = loaded.pipeline.generate("a red circle", OPTIONS, seeds=1)
    [expected] = TextToImage.from_preset("flux_shapes").generate("a red circle", OPTIONS, seeds=1)
    difference = np.asarray(image, dtype=int) - np.asarray(expected, dtype=int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("num_spare_cores", [0, 1])
def test_images_are_decoded_beside_the_loop_where_it_leaves_a_core(
    num_spare_cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = set(range(torch.get_num_threads() + num_spare_cores))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    loader, spec = ModelLoader("cpu", Memory()), spec_of("flux_shapes")
    loader.measure(spec, print, None)
    limits = loader.load(spec, print).card.image_limits
    assert limits is not None
    assert limits.overlaps == bool(num_spare_cores)


def test_fixed_placements_are_taken_without_a_budget_too() -> None:
    spec = spec_of("flux_shapes", placement={"num_streamed_blocks": 10})
    loader = ModelLoader("cpu", Memory())
    loader.measure(spec, print, None)
    loaded = loader.load(spec, print)
    assert isinstance(loaded.pipeline, TextToImage)
    [image] = loaded.pipeline.generate("a red circle", OPTIONS, seeds=1)
    assert image.size == (64, 64)


def test_the_revision_tells_other_weights_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        shutil.copytree(BUNDLED / "f_net_shapes", directory)
    weights = next(other.glob("model*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    cards = [load(spec_of("a", place), "cpu", print).card for place in (one, other)]
    assert cards[0].digest == cards[1].digest
    weights.write_bytes(content)
    changed = load(spec_of("a", other), "cpu", print).card
    assert changed.revision != cards[0].revision
    assert changed.digest != cards[0].digest


def test_a_model_of_another_task_than_was_said_is_refused() -> None:
    spec = spec_of("a", BUNDLED / "vit_shapes", task="images")
    with pytest.raises(PresetError, match="model a: its task is classify, not images"):
        load(spec, "cpu", print)


def test_a_card_says_what_results_follow_from(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "f_net_shapes", tmp_path / "mine")
    first = load(spec_of("reader", tmp_path / "mine")).card.results_digest
    assert load(spec_of("reader", tmp_path / "mine")).card.results_digest == first
    in_float16 = load(spec_of("reader", tmp_path / "mine", dtype="float16"))
    assert in_float16.card.results_digest != first
    with (tmp_path / "mine" / "README.md").open("a") as file:
        file.write("another version")
    assert load(spec_of("reader", tmp_path / "mine")).card.results_digest != first


def test_a_model_is_run_by_the_levers_of_its_entry(caplog: pytest.LogCaptureFixture) -> None:
    reports: list[str] = []
    plain = load(spec_of("flux_shapes", dtype="bfloat16"))
    levers = {"float8_products": True, "block_cache": 0.1}
    lossy = spec_of("flux_shapes", dtype="bfloat16", execution=levers)
    with caplog.at_level("INFO", "models.execution"):
        in_float8 = load(lossy, report=reports.append)
    assert "event=lever_on lever=float8_products" in caplog.text
    assert "event=lever_on lever=block_cache threshold=0.1" in caplog.text
    assert reports == ["loading", "preparing"]
    assert in_float8.card.results_digest != plain.card.results_digest
