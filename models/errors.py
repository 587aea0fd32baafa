"""Every error that `models` raises on purpose.

ModelsError
├── PresetError              a preset cannot be used
│   ├── UnknownPresetError   no preset has this name, no directory this path, no hub this handle
│   ├── DownloadError        a hub did not give the preset's files
│   │   ├── AccessError      it is gated or private, or the token is wrong
│   │   ├── OfflineError     no network, or offline on purpose, and the cache does not hold it
│   │   └── DigestError      what came is not what the hub lists
│   ├── PresetFileError      a file of the preset is missing or cannot be read
│   │   └── PickleError      the weights are there only in a format that can run code
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
    """Raised for a name that is not built in, not on disk and, where it is a handle, on no hub."""


class DownloadError(PresetError):
    """Raised when a hub does not give a preset's files; the message names the handle."""


class AccessError(DownloadError):
    """Raised for a preset whose terms are to be accepted first, or that needs another token."""


class OfflineError(DownloadError):
    """Raised where the hub cannot be reached and its client's cache does not hold the preset."""


class DigestError(DownloadError):
    """Raised for a download that differs from what the hub lists; it is not kept."""


class PresetFileError(PresetError):
    """Raised when a file of a preset is missing or malformed; the message names it."""


class PickleError(PresetFileError):
    """Raised for weights that only exist as pickles: reading them can run code."""


class WeightsError(PresetError):
    """Raised when weights do not fit the backbone; the message names the tensors."""


class InputError(ModelsError):
    """Raised for an input that is wrong in itself."""


class ImageDecodeError(InputError):
    """Raised for bytes that do not decode to an accepted image."""


class TextTooLongError(InputError):
    """Raised for a text of more tokens than the preset takes."""
