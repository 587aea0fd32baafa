"""Dtypes by all the names that they go by: torch's, plain strings, and Keras' serialised policies.

Source: keras/src/dtype_policies/dtype_policy.py (keras 3.15.1).
"""

from collections.abc import Mapping

import torch

# A name, a dtype, Keras' serialised policy, or None for float32.
DtypeLike = torch.dtype | str | Mapping[str, object] | None

# What torch's layers compute in; float8 is a dtype of files.
COMPUTABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_torch_dtype(dtype: DtypeLike) -> torch.dtype:
    """Read "bfloat16", torch.bfloat16 and Keras' serialised policy alike; None is float32.

    Raises ValueError for what is not a floating dtype that layers compute in.
    """
    name: object = dtype
    if isinstance(dtype, Mapping):
        policy = dtype.get("config")
        name = policy.get("name") if isinstance(policy, Mapping) else None
    elif dtype is None:
        name = torch.float32
    named = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(named, torch.dtype) or named not in COMPUTABLE:
        allowed = ", ".join(str(each).removeprefix("torch.") for each in COMPUTABLE)
        raise ValueError(f"dtype {dtype!r:.200} is not one of {allowed}")
    return named


def dtype_policy(name: str) -> dict[str, object]:
    """Serialise a dtype as Keras does."""
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": name},
        "registered_name": None,
    }
