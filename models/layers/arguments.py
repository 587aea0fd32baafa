"""What the constructors of backbones accept: a preset's configuration is a stranger's file.

Without this, a string, a negative size or a NaN would come back as torch's own error, or as a
wrong number; and a million layers as a process that never ends. Knows nothing about any family.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from typing import Annotated, ParamSpec

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, validate_call

MAX_LAYERS = 1_000  # ten times the deepest that is published
MAX_SIZE = 2**24  # of an axis: more rows than any vocabulary

Arguments = ParamSpec("Arguments")


def _plain(value: object) -> object:
    """Turn numpy's numbers into Python's, and leave everything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


_NUMBER = BeforeValidator(_plain)
Size = Annotated[int, Field(ge=1, le=MAX_SIZE), _NUMBER]
NumLayers = Annotated[int, Field(ge=0, le=MAX_LAYERS), _NUMBER]
Rate = Annotated[float, Field(ge=0, le=1), _NUMBER]
Factor = Annotated[int | float, Field(gt=0, le=MAX_SIZE), _NUMBER]
Epsilon = Annotated[float, Field(ge=0, le=1), _NUMBER]
Shape = Annotated[Sequence[Size | None], Field(min_length=1)]
# 0: an axis of positions that turns nothing
AxisSizes = Annotated[
    Sequence[Annotated[int, Field(ge=0, le=MAX_SIZE), _NUMBER]], Field(min_length=1)
]

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def checked(constructor: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let a constructor refuse what its annotations do not allow.

    It then raises ValueError, which names each argument, what was given and what is allowed, and
    TypeError for arguments that are missing or unknown.
    """
    validated: Callable[..., None] = validate_call(config=_STRICT)(constructor)
    expected = signature(constructor)

    @wraps(constructor)
    def construct(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        named = expected.bind(*args, **kwargs).arguments
        try:
            validated(**named)
        except ValidationError as error:
            said = (
                f"{'.'.join(map(str, each['loc']))} is {each['input']!r:.100}: {each['msg']}"
                for each in error.errors(include_url=False)
            )
            raise ValueError("; ".join(said)) from error

    return construct
