"""`TRIPTYCH_MODELS`: the presets of an installation, one list that all of its processes are given.

Says how the list is written; knows nothing about presets.
"""

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = (name.strip() for name in value.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


# "a,b,c" in the environment, the default of each task first
ModelNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
