"""What a configuration may hold, and how a constructor says no."""

from collections.abc import Mapping

import numpy as np
import pytest

from models import FluxBackbone, FNetBackbone, ViTBackbone
from models.backbone import Backbone
from models.layers.arguments import MAX_LAYERS

CONFIGS: Mapping[type[Backbone], Mapping[str, object]] = {
    ViTBackbone: {
        "image_shape": (8, 8, 3),
        "patch_size": 4,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "mlp_dim": 8,
    },
    FNetBackbone: {
        "vocabulary_size": 10,
        "num_layers": 1,
        "hidden_dim": 8,
        "intermediate_dim": 8,
    },
    FluxBackbone: {
        "input_channels": 4,
        "hidden_size": 8,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": (2, 2),
        "theta": 500,
        "use_bias": True,
        "y_shape": (5,),
    },
}


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        (ViTBackbone, "num_heads", 0),
        (ViTBackbone, "num_heads", True),
        (ViTBackbone, "hidden_dim", -8),
        (ViTBackbone, "hidden_dim", 10**12),
        (ViTBackbone, "num_layers", MAX_LAYERS + 1),
        (ViTBackbone, "num_layers", "1"),
        (ViTBackbone, "patch_size", 0),
        (ViTBackbone, "patch_size", (4, 4, 4)),
        (ViTBackbone, "image_shape", (-8, 8, 3)),
        (ViTBackbone, "layer_norm_epsilon", float("nan")),
        (ViTBackbone, "attention_dropout", 1.5),
        (ViTBackbone, "use_mha_bias", "yes"),
        (FNetBackbone, "vocabulary_size", 10.5),
        (FNetBackbone, "num_segments", None),
        (FNetBackbone, "dropout", float("nan")),
        (FluxBackbone, "mlp_ratio", float("inf")),
        (FluxBackbone, "theta", -1),
        (FluxBackbone, "depth", 10**12),
        (FluxBackbone, "gelu_approximate", "quick"),
    ],
)
def test_an_argument_out_of_range_is_named(
    family: type[Backbone], name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=rf"^{name}.* is "):
        family.from_config({**CONFIGS[family], name: value})


@pytest.mark.parametrize("family", CONFIGS)
def test_a_missing_argument_is_named(family: type[Backbone]) -> None:
    lacking = dict(CONFIGS[family])
    name, _ = lacking.popitem() if family is not FluxBackbone else ("theta", lacking.pop("theta"))

    with pytest.raises(TypeError, match=name):
        family.from_config(lacking)


def test_numbers_of_numpy_are_numbers() -> None:
    config: Mapping[str, object] = {**CONFIGS[ViTBackbone], "num_layers": np.int64(2)}

    backbone = ViTBackbone.from_config(config)

    assert backbone.get_config()["num_layers"] == 2
