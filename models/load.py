"""A preset's name or directory to the pipeline that runs it."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from models import preset_files
from models.errors import PresetError

if TYPE_CHECKING:
    from models.flux.text_to_image import TextToImage
    from models.fnet.text_embedder import TextEmbedder
    from models.vit.image_classifier import ImageClassifier


def load_pipeline(
    name_or_directory: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> "TextToImage | ImageClassifier | TextEmbedder":
    """Load the pipeline that the directory's content asks for, ready to run.

    Families are imported when they are needed: an embedding worker never imports diffusers.

    Raises UnknownPresetError for no such preset, PresetFileError for a missing or malformed file,
    WeightsError for weights that do not fit, PresetError for a class without a pipeline.
    """
    directory = preset_files.find_directory(name_or_directory)
    if preset_files.is_diffusers_directory(directory):
        from models.flux.text_to_image import TextToImage

        return TextToImage.from_directory(directory, device, dtype)
    class_name = preset_files.read_object(directory, preset_files.CONFIG_FILE).class_name
    match class_name:
        case "ViTBackbone":
            from models.vit.image_classifier import ImageClassifier

            return ImageClassifier.from_preset(directory, device, dtype)
        case "FNetBackbone":
            from models.fnet.text_embedder import TextEmbedder

            return TextEmbedder.from_preset(directory, device, dtype)
        case _:
            raise PresetError(
                f"preset {str(name_or_directory)!r} holds a {class_name}; "
                "pipelines exist for ViTBackbone and FNetBackbone"
            )
