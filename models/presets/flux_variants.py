"""FLUX.1 models that paint from more than a text: told by their files, and refused. Free of torch.

They have the blocks of a text-to-image model, and would paint noise if they were taken for one: an
image beside the noise comes in as further channels (Fill, Depth, Canny) or further patches
(Kontext). What each takes: black-forest-labs/flux, docs and src/flux/util.py, commit 802fb47; the
classes are those of diffusers 0.42.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.checkpoints.open_files import open_file
from models.checkpoints.preset_files import CONFIG_FILE, DIFFUSERS_INDEX_FILE, read_model
from models.checkpoints.safetensors_headers import read_header
from models.errors import PresetError
from models.presets.file_selection import ORIGINAL_FLUX_FILES, TRANSFORMER

TEXT_TO_IMAGE_CHANNELS = 64
_FILL = "FLUX.1 Fill: an inpainting model, which takes a masked image beside the noise"
_CONTROL = (
    "FLUX.1 Depth or Canny: a control model, which takes a depth or edge map beside the noise"
)
_KONTEXT = "FLUX.1 Kontext: an editing model, which takes the image to edit beside the noise"
_REDUX = "FLUX.1 Redux: an adapter, which turns an image into text features for another model"
_BY_CLASS = {
    "FluxFillPipeline": _FILL,
    "FluxControlPipeline": _CONTROL,
    "FluxControlImg2ImgPipeline": _CONTROL,
    "FluxControlInpaintPipeline": _CONTROL,
    "FluxKontextPipeline": _KONTEXT,
    "FluxKontextInpaintPipeline": _KONTEXT,
    "FluxPriorReduxPipeline": _REDUX,
}
_BY_CHANNELS = {384: _FILL, 128: _CONTROL}
_KONTEXT_NAME = "kontext"  # has the shapes of dev: only the file's name tells it
_REDUX_TENSOR = "redux_up.weight"
_INPUTS = ("img_in.weight", "model.diffusion_model.img_in.weight")  # alone, and all-in-one


class _Index(BaseModel):
    """`model_index.json`, as far as it tells what the pipeline is for."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    class_name: str | None = Field(None, alias="_class_name")


class _Transformer(BaseModel):
    """`transformer/config.json` likewise."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    in_channels: int = TEXT_TO_IMAGE_CHANNELS


def require_text_to_image(path: Path) -> None:
    """Check that a Flux directory, or file of original weights, paints from a text alone.

    What is not there is left for its own reader to miss.

    Raises PresetError for a model of another task, saying what it is, and PresetFileError for a
    malformed file.
    """
    if (path / DIFFUSERS_INDEX_FILE).is_file():
        _require_in_directory(path)
        return
    for file in [path] if path.is_file() else sorted(path.glob(ORIGINAL_FLUX_FILES)):
        _require_in_file(file)


def _require_in_directory(directory: Path) -> None:
    class_name = read_model(directory, DIFFUSERS_INDEX_FILE, _Index).class_name
    if class_name in _BY_CLASS:
        raise PresetError(f"{directory}: {_BY_CLASS[class_name]}; a text-to-image model is needed")
    if (directory / TRANSFORMER / CONFIG_FILE).is_file():
        config = read_model(directory / TRANSFORMER, CONFIG_FILE, _Transformer)
        _require_channels(directory, config.in_channels)


def _require_in_file(file: Path) -> None:
    with open_file(file) as opened:
        stored = read_header(opened, file)
    if _REDUX_TENSOR in stored:
        raise PresetError(f"{file}: {_REDUX}; a text-to-image model is needed")
    if _KONTEXT_NAME in file.name.lower():
        raise PresetError(f"{file}: {_KONTEXT}; a text-to-image model is needed")
    shapes = [stored[name].shape for name in _INPUTS if name in stored]
    for shape in shapes:
        _require_channels(file, shape[-1] if shape else 0)


def _require_channels(where: Path, num_channels: int) -> None:
    if num_channels == TEXT_TO_IMAGE_CHANNELS:
        return
    kind = _BY_CHANNELS.get(num_channels, "a Flux model that is not known")
    raise PresetError(
        f"{where}: {kind} ({num_channels} input channels); text-to-image checkpoints have "
        f"{TEXT_TO_IMAGE_CHANNELS}"
    )
