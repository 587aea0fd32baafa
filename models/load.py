"""A preset's name, handle or directory to the pipeline that runs it.

The class of the stored backbone decides. Knows nothing about how a pipeline reads its files.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from models.checkpoints import preset_files
from models.errors import PresetError
from models.flux.placement import Placement
from models.presets import PresetTask
from models.presets.format_detection import detect_task
from models.presets.handles import Part, fetch

if TYPE_CHECKING:
    from models.flux.text_to_image import TextToImage
    from models.fnet.text_embedder import TextEmbedder
    from models.vit.image_classifier import ImageClassifier

_PIPELINES = {
    PresetTask.TEXT_TO_IMAGE: ("models.flux.text_to_image", "TextToImage"),
    PresetTask.IMAGE_CLASSIFICATION: ("models.vit.image_classifier", "ImageClassifier"),
    PresetTask.EMBEDDING: ("models.fnet.text_embedder", "TextEmbedder"),
}


def load_pipeline(
    preset: str | Path,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    placement: Placement | None = None,
) -> "TextToImage | ImageClassifier | TextEmbedder":
    """Load the pipeline that the preset's content asks for, ready to run.

    Families are imported when they are needed: an embedding worker never imports Flux.
    `placement` says what of a Flux pipeline shall not lie whole on the device. On the meta device
    no weights are read: so the bytes of a pipeline are known before it is loaded.

    Raises UnknownPresetError for no such preset, DownloadError for one that cannot be fetched,
    PresetFileError for a missing or malformed file, WeightsError for weights that do not fit,
    PresetError for a class without a pipeline, for a Flux model that does not paint from a text
    alone, and for a placement that does not fit or of another task's pipeline.
    """
    path = fetch(preset, Part.PIPELINE)
    task = detect_task(path)
    if placement is not None and task is not PresetTask.TEXT_TO_IMAGE:
        raise PresetError(
            f"preset {str(preset)!r} is for {task}; a placement is for {PresetTask.TEXT_TO_IMAGE}"
        )
    if task is PresetTask.TEXT_TO_IMAGE and (path / preset_files.CONFIG_FILE).is_file():
        raise PresetError(
            f"preset {str(preset)!r} holds a FluxBackbone alone; text-to-image needs text "
            "encoders and an autoencoder too, in the layout of diffusers or of the original"
        )
    module, name = _PIPELINES[task]
    placed = () if placement is None else (placement,)
    pipeline = getattr(import_module(module), name).from_preset(path, device, dtype, *placed)
    return cast("TextToImage | ImageClassifier | TextEmbedder", pipeline)
