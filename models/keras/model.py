"""What KerasHub's formats need to know of a backbone."""

from typing import ClassVar

from torch import nn

from models.checkpoints.preset_files import KerasObject
from models.keras.layers import KerasLayer


class KerasModel(nn.Module):
    """A module that KerasHub knows too."""

    keras_module: ClassVar[str]  # where KerasHub defines the class of this name
    keras_tasks: ClassVar[tuple[str, ...]]  # KerasHub's tasks for it, sorted

    def get_config(self) -> dict[str, object]:
        """Give the constructor's arguments, as JSON holds them."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it was built")

    def keras_layers(self) -> tuple[KerasLayer, ...]:
        """List KerasHub's layers with weights, in order of position."""
        raise NotImplementedError(f"{type(self).__name__} does not say what KerasHub calls it")

    def to_keras_object(self) -> KerasObject:
        """Serialise the configuration in KerasHub's form."""
        class_name = type(self).__name__
        return KerasObject(
            module=self.keras_module,
            class_name=class_name,
            config=self.get_config(),
            registered_name=f"keras_hub>{class_name}",
        )
