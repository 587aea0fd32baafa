"""Which models a client can name: presets and their aliases, one default per task."""

from models.presets import PRESETS, ImageLimits, Preset, PresetTask
from service.errors import ModelNotFoundError
from service.settings import ServiceSettings
from worker.contract.jobs import Task

TASKS = {
    PresetTask.TEXT_TO_IMAGE: Task.IMAGES,
    PresetTask.IMAGE_CLASSIFICATION: Task.CLASSIFY,
    PresetTask.EMBEDDING: Task.EMBEDDINGS,
}


class Catalog:
    def __init__(self, settings: ServiceSettings) -> None:
        self._aliases = settings.model_aliases
        self._defaults = {
            PresetTask.TEXT_TO_IMAGE: settings.default_image_model,
            PresetTask.IMAGE_CLASSIFICATION: settings.default_classify_model,
            PresetTask.EMBEDDING: settings.default_embeddings_model,
        }

    def presets(self) -> list[Preset]:
        return list(PRESETS.values())

    def aliases(self, preset: Preset) -> list[str]:
        return [alias for alias, name in self._aliases.items() if name == preset.name]

    def get(self, name: str) -> Preset:
        """Find a preset of any task by name or alias."""
        preset = PRESETS.get(self._aliases.get(name, name))
        if preset is None:
            raise ModelNotFoundError(name, [*PRESETS, *self._aliases])
        return preset

    def image_preset(self, name: str | None) -> tuple[Preset, ImageLimits]:
        preset = self._for_task(name, PresetTask.TEXT_TO_IMAGE)
        assert preset.image_limits is not None, f"this is a bug: {preset.name} has no limits"
        return preset, preset.image_limits

    def classify_preset(self, name: str | None) -> tuple[Preset, int]:
        """The preset and its number of labels."""
        preset = self._for_task(name, PresetTask.IMAGE_CLASSIFICATION)
        assert preset.num_labels is not None, f"this is a bug: {preset.name} has no labels"
        return preset, preset.num_labels

    def embeddings_preset(self, name: str | None) -> tuple[Preset, int]:
        """The preset and the width of its embeddings."""
        preset = self._for_task(name, PresetTask.EMBEDDING)
        assert preset.embedding_width is not None, f"this is a bug: {preset.name} has no width"
        return preset, preset.embedding_width

    def _for_task(self, name: str | None, task: PresetTask) -> Preset:
        name = self._defaults[task] if name is None else name
        preset = PRESETS.get(self._aliases.get(name, name))
        if preset is None or preset.task is not task:
            raise ModelNotFoundError(name, self._names(task))
        return preset

    def _names(self, task: PresetTask) -> list[str]:
        of_task = [preset for preset in PRESETS.values() if preset.task is task]
        return [name for p in of_task for name in (p.name, *self.aliases(p))]
