"""How the models to serve are written, and what each way means."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from models.errors import PresetError, PresetFileError, UnknownPresetError
from models.execution.execution import Execution
from worker.contract.jobs import Task
from worker.model_specs import FixedExecution, ModelSpec, ModelSpecs, as_json, with_tasks

SPECS: TypeAdapter[tuple[ModelSpec, ...]] = TypeAdapter(ModelSpecs)
BUNDLED = Path(__file__).parents[2] / "models" / "bundled"


def read(value: object) -> dict[str, str | None]:
    return {spec.name: spec.handle for spec in SPECS.validate_python(value)}


def test_every_way_of_writing_a_model() -> None:
    assert read("flux_dev, pets=hf://someone/vit@main ,f_net_shapes,flux_dev") == {
        "flux_dev": None,
        "pets": "hf://someone/vit@main",
        "f_net_shapes": None,
    }
    assert read("hf://someone/vit-pets@v2") == {"vit-pets": "hf://someone/vit-pets@v2"}
    assert list(read("kaggle://keras/vit/keras/my_vit/4")) == ["my_vit"]
    assert read("oil/painter=./a=b") == {"oil/painter": "./a=b"}
    assert read(["a=/x", {"name": "b", "handle": "/y"}]) == {"a": "/x", "b": "/y"}


def test_a_directory_and_a_file_are_called_after_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flux-merge").mkdir()
    (tmp_path / "oil.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert read("flux-merge") == {"flux-merge": "flux-merge"}
    assert read("./flux-merge/,oil.safetensors") == {
        "flux-merge": "./flux-merge/",
        "oil": "oil.safetensors",
    }


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("nothing", "'nothing' is not one of flux_shapes"),
        ("vit_base_patch16_224_imagenet21k", "imagenet21k' is not one of flux_shapes"),
        ("flux_shapes=/x", "'flux_shapes' is the name of a built-in preset"),
        (str(BUNDLED / "flux_shapes"), "'flux_shapes' is the name of a built-in preset"),
        ([{"name": "a", "handle": "/x", "aliases": ["flux_dev"]}], "'flux_dev' is the name of a"),
        ("a=/x,a=/y", "'a' names two models"),
        ([{"name": "a", "handle": "/x", "aliases": ["b"]}, "b=/y"], "'b' names two models"),
        ("a b=/x", "the name 'a b' is not allowed; letters, digits and"),
        ([{"name": "a/../b", "handle": "/x"}], "the name 'a/../b' is not allowed"),
        ([{"name": "a", "handle": "/x", "aliases": ["dall-e:3"]}], "'dall-e:3' is not allowed"),
        ([], "at least one model"),
        ([{"name": "a", "handle": "/x", "colour": "red"}], "not permitted"),
        ([{"name": "a", "handle": "/x", "dtype": "int4"}], "'bfloat16', 'float16' or 'int8'"),
        ([{"name": "a", "handle": "/x", "default_size": "12"}], "should match pattern"),
        ([{"name": "a"}], "'a' is not one of flux_shapes"),
        ([{"name": "flux_dev", "loras": {"a b": "/x"}}], "the name 'a b' is not allowed"),
        ([{"name": "flux_dev", "loras": {"a": ""}}], "at least 1 character"),
        ([{"name": "flux_dev", "loras": ["/x"]}], "valid dictionary"),
        ("[1", "JSON"),
        (7, "valid tuple"),
    ],
)
def test_what_cannot_be_served_is_refused(value: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SPECS.validate_python(value)


def test_the_list_reaches_a_worker_as_it_was_read() -> None:
    entries = [
        "flux_dev",
        {"name": "a", "handle": "/x", "task": "images", "aliases": ["c"], "num_steps": 3},
        {"name": "flux_schnell", "loras": {"pixel-art": "./p.safetensors", "ink": "hf://a/b"}},
    ]
    specs = SPECS.validate_python(entries)
    assert SPECS.validate_python(as_json(specs)) == specs
    assert json.loads(as_json(specs))[0] == {"name": "flux_dev"}


def test_the_checkpoint_tells_the_task() -> None:
    names = ("flux_shapes", "vit_shapes", "f_net_shapes")
    specs = SPECS.validate_python([f"my-{name}={BUNDLED / name}" for name in names])
    assert [spec.task for spec in with_tasks(specs)] == list(Task)


def test_a_task_that_is_said_needs_no_checkpoint() -> None:
    [spec] = with_tasks([ModelSpec(name="a", handle="hf://no/where", task=Task.CLASSIFY)])
    assert spec.task is Task.CLASSIFY


def test_loras_are_for_models_that_paint() -> None:
    loras = {"ink": "/ink.safetensors"}
    assert with_tasks([ModelSpec(name="flux_shapes", loras=loras)])[0].loras == loras
    with pytest.raises(PresetError, match="model vit_shapes is for classify; loras are for images"):
        with_tasks([ModelSpec(name="vit_shapes", loras=loras)])


def test_a_checkpoint_that_is_not_there_is_named_with_its_model(tmp_path: Path) -> None:
    with pytest.raises(UnknownPresetError, match="model a: preset '/no/where' is unknown"):
        with_tasks([ModelSpec(name="a", handle="/no/where")])
    with pytest.raises(PresetFileError, match=r"model a: .*config\.json"):
        with_tasks([ModelSpec(name="a", handle=str(tmp_path))])
    other = {"class_name": "GPT", "registered_name": "keras_hub>GPTBackbone", "config": {}}
    (tmp_path / "config.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(PresetError, match=r"model a: .* holds a GPTBackbone; pipelines exist for"):
        with_tasks([ModelSpec(name="a", handle=str(tmp_path))])


def test_levers_are_written_as_a_table_and_checked_together() -> None:
    levers = {"compiles": True, "float8_products": True, "block_cache": 0.1}
    [spec] = SPECS.validate_python([{"name": "flux_shapes", "execution": levers}])
    assert spec.execution is not None
    assert spec.execution.execution == Execution(
        compiles=True, float8_products=True, block_cache=0.1
    )
    assert SPECS.validate_python(as_json([spec])) == (spec,)
    with pytest.raises(ValidationError, match="cuda_graphs and block_cache exclude each other"):
        SPECS.validate_python([{"name": "flux_shapes", "execution": levers | {"cuda_graphs": 1}}])


def test_int8_is_refused_for_images() -> None:
    with pytest.raises(PresetError, match="flux_shapes is for images; dtype int8 is for classify"):
        with_tasks([ModelSpec(name="flux_shapes", dtype="int8")])
    [reads] = with_tasks([ModelSpec(name="f_net_shapes", dtype="int8")])
    assert reads.dtype == "int8"


def test_levers_of_images_are_refused_for_other_tasks() -> None:
    spec = ModelSpec(name="vit_shapes", execution=FixedExecution(block_cache=0.1))
    with pytest.raises(PresetError, match="vit_shapes is for classify; block_cache and channels"):
        with_tasks([spec])
