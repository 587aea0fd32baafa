"""A preset's name, handle or directory to the pipeline that runs it.

The class of the stored backbone decides. Knows nothing about how a pipeline reads its files.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from models.checkpoints import preset_files
from models.errors import PresetError
from models.presets.formats import read_stored
from models.presets.handles import Part, fetch

if TYPE_CHECKING:
    from models.flux.text_to_image import TextToImage
    from models.fnet.text_embedder import TextEmbedder
    from models.vit.image_classifier import ImageClassifier


def load_pipeline(
    preset: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> "TextToImage | ImageClassifier | TextEmbedder":
    """Load the pipeline that the preset's content asks for, ready to run.

    Families are imported when they are needed: an embedding worker never imports diffusers.

    Raises UnknownPresetError for no such preset, DownloadError for one that cannot be fetched,
    PresetFileError for a missing or malformed file, WeightsError for weights that do not fit,
    PresetError for a class without a pipeline.
    """
    path = fetch(preset, Part.PIPELINE)
    match read_stored(path).class_name:
        case "FluxBackbone" if not (path / preset_files.CONFIG_FILE).is_file():
            from models.flux.text_to_image import TextToImage

            return TextToImage.from_preset(path, device, dtype)
        case "FluxBackbone":
            raise PresetError(
                f"preset {str(preset)!r} holds a FluxBackbone alone; text-to-image needs text "
                "encoders and an autoencoder too, in the layout of diffusers or of the original"
            )
        case "ViTBackbone":
            from models.vit.image_classifier import ImageClassifier

            return ImageClassifier.from_preset(path, device, dtype)
        case "FNetBackbone":
            from models.fnet.text_embedder import TextEmbedder

            return TextEmbedder.from_preset(path, device, dtype)
        case class_name:
            raise PresetError(
                f"preset {str(preset)!r} holds a {class_name}; pipelines exist for FluxBackbone, "
                "ViTBackbone and FNetBackbone"
            )
