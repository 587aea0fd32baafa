"""Which models a client can name: the presets served and their aliases, one default per task."""

from collections.abc import Sequence

from models.presets import ImageLimits, Preset, PresetTask, get_preset, names_for
from service.errors import ModelNotFoundError
from service.settings import ServiceSettings
from worker.contract.jobs import Task

_PRESET_TASKS = {
    Task.IMAGES: PresetTask.TEXT_TO_IMAGE,
    Task.CLASSIFY: PresetTask.IMAGE_CLASSIFICATION,
    Task.EMBEDDINGS: PresetTask.EMBEDDING,
}


class Catalog:
    def __init__(self, settings: ServiceSettings) -> None:
        self._names = settings.models
        self._aliases = settings.model_aliases
        self._defaults = {
            PresetTask.TEXT_TO_IMAGE: settings.default_image_model,
            PresetTask.IMAGE_CLASSIFICATION: settings.default_classify_model,
            PresetTask.EMBEDDING: settings.default_embeddings_model,
        }

    def presets(self) -> list[Preset]:
        return [get_preset(name) for name in self._names]

    def tasks(self) -> list[Task]:
        """The tasks that at least one preset is served for."""
        return [task for task, kind in _PRESET_TASKS.items() if names_for(kind, self._names)]

    def aliases(self, preset: Preset) -> list[str]:
        return [alias for alias, name in self._aliases.items() if name == preset.name]

    def get(self, name: str) -> Preset:
        """Find a preset of any task by name or alias."""
        return self._find(name, self._names)

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
        served = names_for(task, self._names)
        if name is None:
            name = self._defaults[task] or next(iter(served), None)
        return self._find(name, served)

    def _find(self, name: str | None, served: Sequence[str]) -> Preset:
        """Find one of the presets served by name or alias; the name is None where none is."""
        found = None if name is None else self._aliases.get(name, name)
        if found is None or found not in served:
            aliases = [alias for alias, preset in self._aliases.items() if preset in served]
            raise ModelNotFoundError(name, [*served, *aliases])
        return get_preset(found)
