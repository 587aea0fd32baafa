"""Every error that `models` raises on purpose.

ModelsError
├── PresetError              a preset cannot be used
│   ├── UnknownPresetError   no preset has this name and no directory this path
│   ├── PresetFileError      a file of the preset is missing or cannot be read
│   └── WeightsError         weights are missing, left over or of the wrong shape
└── InputError               an input that no retry can mend
    ├── ImageDecodeError     bytes that are not an accepted image
    └── TextTooLongError     more tokens than the preset takes
"""


class ModelsError(Exception):
    """The root: catch it to catch everything this library raises on purpose."""


class PresetError(ModelsError):
    """Raised when a preset cannot be found, read or built."""


class UnknownPresetError(PresetError):
    """Raised for a name that is neither built in nor a directory."""


class PresetFileError(PresetError):
    """Raised when a file of a preset is missing or malformed; the message names it."""


class WeightsError(PresetError):
    """Raised when weights do not fit the backbone; the message names the tensors."""


class InputError(ModelsError):
    """Raised for an input that is wrong in itself."""


class ImageDecodeError(InputError):
    """Raised for bytes that do not decode to an accepted image."""


class TextTooLongError(InputError):
    """Raised for a text of more tokens than the preset takes."""
