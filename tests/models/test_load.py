"""load_pipeline: the directory's content decides about the pipeline."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from models import Backbone, FluxBackbone
from models.errors import PresetError, PresetFileError, UnknownPresetError
from models.flux.placement import Placement
from models.flux.text_to_image import TextToImage
from models.fnet.masked_lm import MaskedLM
from models.fnet.text_classifier import TextClassifier
from models.fnet.text_embedder import TextEmbedder
from models.load import load_pipeline
from models.vit.image_classifier import ImageClassifier
from tests.models.flux.conftest import tiny_pipeline


@pytest.fixture(scope="module")
def flux_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("flux")
    pipeline: FluxPipeline = tiny_pipeline(has_guidance=True, use_dynamic_shifting=False)
    pipeline.save_pretrained(directory, safe_serialization=True)
    return directory


def test_a_diffusers_directory_gives_text_to_image(flux_directory: Path) -> None:
    pipeline = load_pipeline(flux_directory)

    assert isinstance(pipeline, TextToImage)
    assert pipeline.has_guidance


def test_the_backbone_of_a_diffusers_directory_is_a_preset_too(flux_directory: Path) -> None:
    pipeline = load_pipeline(flux_directory)
    assert isinstance(pipeline, TextToImage)

    backbone = Backbone.from_preset(flux_directory)

    assert isinstance(backbone, FluxBackbone)
    torch.testing.assert_close(backbone.state_dict(), pipeline.backbone.state_dict())


def test_a_flux_backbone_saves_itself_as_a_preset(flux_directory: Path, tmp_path: Path) -> None:
    backbone = FluxBackbone.from_preset(flux_directory)

    backbone.save_to_preset(tmp_path)

    again = Backbone.from_preset(tmp_path)
    torch.testing.assert_close(again.state_dict(), backbone.state_dict(), atol=0, rtol=0)


def test_a_flux_backbone_alone_is_no_pipeline(flux_directory: Path, tmp_path: Path) -> None:
    FluxBackbone.from_preset(flux_directory).save_to_preset(tmp_path)

    with pytest.raises(PresetError, match="holds a FluxBackbone alone"):
        load_pipeline(tmp_path)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UnknownPresetError, match="'no/such/preset' is unknown"):
        load_pipeline("no/such/preset")


def test_a_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetFileError, match=r"config\.json is missing"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize("content", ["[]", '{"registered_name": 3}', '{"registered_name": "x"}'])
def test_a_malformed_configuration_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)

    with pytest.raises(PresetFileError, match=r"config\.json is malformed"):
        load_pipeline(tmp_path)


def test_a_configuration_of_no_known_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')

    with pytest.raises(PresetFileError, match=r"of no known format.*registered_name"):
        load_pipeline(tmp_path)


def test_a_transformers_model_of_another_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')

    with pytest.raises(PresetFileError, match="of type 'bert'; vit and fnet are allowed"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize(
    ("pipeline", "preset", "said"),
    [
        (ImageClassifier, "f_net_shapes", "a FNetBackbone, which is not a ViTBackbone"),
        (TextEmbedder, "vit_shapes", "a ViTBackbone, which is not a FNetBackbone"),
        (TextClassifier, "vit_shapes", "a ViTBackbone, which is not a FNetBackbone"),
        (MaskedLM, "vit_shapes", "a ViTBackbone, which is not a FNetBackbone"),
    ],
)
def test_a_pipeline_says_whose_preset_it_was_given(
    pipeline: type[ImageClassifier | TextEmbedder | TextClassifier | MaskedLM],
    preset: str,
    said: str,
) -> None:
    with pytest.raises(PresetError, match=said):
        pipeline.from_preset(preset)


@pytest.mark.parametrize("preset", ["vit_shapes", "f_net_shapes"])
def test_a_placement_is_for_text_to_image(preset: str) -> None:
    with pytest.raises(PresetError, match=r"is for .*; a placement is for text-to-image"):
        load_pipeline(preset, placement=Placement())


def test_a_placement_reaches_the_pipeline(flux_directory: Path) -> None:
    pipeline = load_pipeline(flux_directory, placement=Placement(float8=True))

    assert isinstance(pipeline, TextToImage)
    dtypes = {parameter.dtype for parameter in pipeline.backbone.blocks[0].parameters()}
    assert torch.float8_e4m3fn in dtypes


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("preset", ["vit_shapes", "f_net_shapes", "flux_shapes"])
def test_the_bytes_of_a_pipeline_are_known_before_it_is_loaded(
    preset: str, dtype: torch.dtype | None
) -> None:
    on_meta, loaded = (
        [each for module in load_pipeline(preset, device, dtype).modules
         for each in module.parameters()]
        for device in ("meta", "cpu")
    )  # fmt: skip
    assert all(each.is_meta for each in on_meta)
    assert [each.nbytes for each in on_meta] == [each.nbytes for each in loaded]


@pytest.mark.parametrize("preset", ["vit_shapes", "f_net_shapes", "flux_shapes"])
def test_every_pipeline_moves_with_all_that_it_holds(preset: str) -> None:
    pipeline = load_pipeline(preset)

    pipeline.to("meta")

    assert all(each.is_meta for module in pipeline.modules for each in module.parameters())
    assert all(each.is_meta for module in pipeline.modules for each in module.buffers())
