"""Our text encoders and autoencoder with the weights and the configuration of an oracle."""

import json
from typing import TypeVar

from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTextModel, T5EncoderModel

from models.flux.autoencoder import Autoencoder
from models.flux.clip import ClipTextEncoder
from models.flux.part_configs import AutoencoderConfig, ClipConfig, T5Config
from models.flux.t5 import T5Encoder

Part = TypeVar("Part", bound=nn.Module)


def our_clip(oracle: CLIPTextModel) -> ClipTextEncoder:
    ours = ClipTextEncoder(ClipConfig.model_validate(oracle.config.to_diff_dict()))
    return _with_weights(ours, oracle)


def our_t5(oracle: T5EncoderModel) -> T5Encoder:
    ours = T5Encoder(T5Config.model_validate(oracle.config.to_diff_dict()))
    return _with_weights(ours, oracle)


def our_autoencoder(oracle: AutoencoderKL) -> Autoencoder:
    config = json.loads(oracle.to_json_string())
    return _with_weights(Autoencoder(AutoencoderConfig.model_validate(config)), oracle)


def _with_weights(ours: Part, oracle: nn.Module) -> Part:
    state = dict(oracle.state_dict())
    state.pop("encoder.embed_tokens.weight", None)  # T5's embedding, a second time
    ours.load_state_dict(state)
    return ours.eval().requires_grad_(False)
