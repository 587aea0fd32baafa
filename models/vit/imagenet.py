"""The names of the 1,000 classes of ImageNet-1k, for presets that number their classes alone.

From torchvision 0.29.2 (`_IMAGENET_CATEGORIES`, torchvision/models/_meta.py; BSD-3-Clause,
copyright Soumith Chintala 2016): the first synonym of each synset, told apart where two were alike.
Knows nothing about any preset.
"""

from pathlib import Path

NUM_LABELS = 1000

_FILE = Path(__file__).with_name("imagenet_labels.txt")  # a name a line


def imagenet_labels() -> tuple[str, ...]:
    """Read the class names in order of class id, all different."""
    return tuple(_FILE.read_text(encoding="utf-8").splitlines())
