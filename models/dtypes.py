"""Dtypes by all the names that they go by: torch's, plain strings, and Keras' serialised policies.

Source: keras/src/dtype_policies/dtype_policy.py (keras 3.15.1).
"""

from collections.abc import Mapping

import torch

# A name, a dtype, Keras' serialised policy, or None for float32.
DtypeLike = torch.dtype | str | Mapping[str, object] | None


def as_torch_dtype(dtype: DtypeLike) -> torch.dtype:
    """Read "bfloat16", torch.bfloat16 and Keras' serialised policy alike; None is float32.

    Raises ValueError for what is not a floating dtype.
    """
    if isinstance(dtype, Mapping):
        policy = dtype.get("config")
        return as_torch_dtype(policy["name"] if isinstance(policy, Mapping) else str(dtype))
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ValueError(f"dtype {dtype!r} is not a floating dtype such as 'float32' or 'bfloat16'")
    return named


def dtype_policy(name: str) -> dict[str, object]:
    """Serialise a dtype as Keras does."""
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": name},
        "registered_name": None,
    }
