"""The tables of KerasHub's layers against those of KerasHub itself, recorded by `record.py`."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, ConfigDict

import models
from models.backbone import Backbone

Shape = tuple[int, ...]


class RecordedLayer(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    variables: dict[str, Shape]  # by dataset in model.weights.h5


class RecordedModel(BaseModel):
    """What KerasHub built in a fresh process: its layers with weights, in flattened order."""

    model_config = ConfigDict(frozen=True)

    class_name: str
    config: dict[str, object]
    layers: tuple[RecordedLayer, ...]

    def __str__(self) -> str:
        differing = ("depth", "depth_single_blocks", "guidance_embed", "use_bias", "num_layers")
        said = [f"{key}={self.config[key]}" for key in differing if key in self.config]
        off = [key for key, value in self.config.items() if value is False and key not in differing]
        return "-".join((self.class_name, *said, *off))

    def build(self) -> Backbone:
        family: type[Backbone] = getattr(models, self.class_name)
        with torch.device("meta"):
            return family.from_config(self.config)


RECORDED = [
    RecordedModel.model_validate(model)
    for model in json.loads((Path(__file__).parent / "layers.json").read_text())
]
each_model = pytest.mark.parametrize("recorded", RECORDED, ids=str)


@each_model
def test_layers_have_the_names_and_positions_of_keras_hub(recorded: RecordedModel) -> None:
    layers = recorded.build().keras_layers()
    assert [layer.name for layer in layers] == [layer.name for layer in recorded.layers]
    assert [layer.position for layer in layers] == list(range(len(layers)))


@each_model
def test_variables_lie_where_keras_hub_stores_them(recorded: RecordedModel) -> None:
    stored = [
        [layer.stored_name(index) for index in range(len(layer.variables))]
        for layer in recorded.build().keras_layers()
    ]
    assert stored == [list(layer.variables) for layer in recorded.layers]


@each_model
def test_every_parameter_has_one_variable_of_the_recorded_shape(recorded: RecordedModel) -> None:
    backbone = recorded.build()
    shapes = {name: shape for layer in recorded.layers for name, shape in layer.variables.items()}
    in_keras = {
        variable.parameter: variable.form.to_ours(
            torch.empty(shapes[layer.stored_name(index)], device="meta")
        )
        for layer in backbone.keras_layers()
        for index, variable in enumerate(layer.variables)
        if variable.parameter is not None
    }
    ours = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    assert {name: tensor.shape for name, tensor in in_keras.items()} == ours


@each_model
def test_forms_lead_there_and_back(recorded: RecordedModel) -> None:
    for layer, seen in zip(recorded.build().keras_layers(), recorded.layers, strict=True):
        for variable, shape in zip(layer.variables, seen.variables.values(), strict=True):
            tensor = torch.randn(shape)
            assert torch.equal(variable.form.to_keras(variable.form.to_ours(tensor)), tensor)


@each_model
def test_layers_name_modules_that_exist(recorded: RecordedModel) -> None:
    backbone = recorded.build()
    for layer in backbone.keras_layers():
        if layer.module is not None:
            assert backbone.get_submodule(layer.module) is not None
