"""One number for all weights of a backbone, to compare them between processes."""

import hashlib

import torch
from torch import nn


def digest_of(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        digest.update(name.encode() + values)
    return digest.hexdigest()
