"""The LoRAs of the configuration: fetched and attached with their model, or refused by name."""

from pathlib import Path

import pytest

from models.errors import PresetError
from models.flux.text_to_image import TextToImage
from tests.models.flux.lora_oracle import write
from tests.models.flux.lora_styles import PEFT, Sizes, random_adapters
from worker.contract.jobs import Task
from worker.device_memory import Memory
from worker.loading import Loaded, ModelLoader
from worker.loras import fetch_loras, num_bytes
from worker.model_specs import ModelSpec

BUNDLED = Path(__file__).parents[2] / "models" / "bundled"
LAYER = "transformer_blocks.0.attn.to_q"


def spec_with(loras: dict[str, Path]) -> ModelSpec:
    sources = {name: str(path) for name, path in loras.items()}
    return ModelSpec(
        name="oil", handle=str(BUNDLED / "flux_shapes"), task=Task.IMAGES, loras=sources
    )


def write_lora(file: Path, width: int, rank: int) -> Path:
    return write(random_adapters({LAYER: Sizes(rank, width, width)}, PEFT), file)


def load(spec: ModelSpec) -> Loaded[object]:
    loader = ModelLoader("cpu", Memory())
    loader.measure(spec, lambda _: None, None)
    return loader.load(spec, lambda _: None)


@pytest.fixture(scope="module")
def plain() -> TextToImage:
    return TextToImage.from_preset("flux_shapes")


def test_all_loras_are_attached_without_effect_and_counted(
    plain: TextToImage, tmp_path: Path
) -> None:
    width = plain.backbone.hidden_size
    ranks = {"ink": 2, "pixel-art": 3}
    files = {name: write_lora(tmp_path / f"{name}.safetensors", width, rank)
             for name, rank in ranks.items()}  # fmt: skip
    loaded = load(spec_with(files))
    assert isinstance(loaded.pipeline, TextToImage)
    assert loaded.pipeline.lora_scales == {"ink": 0.0, "pixel-art": 0.0}
    assert loaded.card.image_limits is not None
    assert loaded.card.image_limits.loras == ("ink", "pixel-art")
    without = load(spec_with({})).card.memory_bytes
    assert loaded.card.memory_bytes == without + 4 * 2 * width * sum(ranks.values())


def test_a_lora_that_does_not_fit_is_named_with_its_model(tmp_path: Path) -> None:
    alien = write_lora(tmp_path / "alien.safetensors", width=48, rank=2)
    with pytest.raises(PresetError, match=r"model oil: LoRA alien does not fit: .* of a wrong sha"):
        load(spec_with({"alien": alien}))


def test_a_lora_that_cannot_be_fetched_is_named_with_its_model(tmp_path: Path) -> None:
    spec = spec_with({"ink": tmp_path / "nowhere.safetensors"})
    with pytest.raises(PresetError, match=r"model oil: LoRA ink: .*nowhere.* does not exist"):
        fetch_loras(spec, lambda *_: None)


def test_the_files_tell_what_the_loras_take(tmp_path: Path) -> None:
    file = write_lora(tmp_path / "ink.safetensors", width=48, rank=2)
    (tmp_path / "directory").mkdir()
    inside = write_lora(tmp_path / "directory" / "adapter_model.safetensors", width=48, rank=4)
    (tmp_path / "directory" / "adapter_config.json").write_text("{}")
    sizes = num_bytes({"ink": file, "peft": tmp_path / "directory"})
    assert sizes == file.stat().st_size + inside.stat().st_size
