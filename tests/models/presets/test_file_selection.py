"""Which files of a repository each part needs."""

import pytest

from models.errors import PickleError, PresetFileError
from models.presets.file_selection import Lora, Part, choose_files

CLUTTER = ("README.md", ".gitattributes", "pytorch_model.bin", "model.onnx", "flax_model.msgpack")

KERAS = ("config.json", "metadata.json", "model.weights.h5")
TASK = ("task.json", "task.weights.h5", "tokenizer.json", "assets/tokenizer/vocabulary.spm")

TRANSFORMERS = ("config.json", "preprocessor_config.json", "model.safetensors", "tf_model.h5")

FLUX_BACKBONE = (
    "model_index.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
)
FLUX_REST = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model-00001-of-00001.safetensors",
    "text_encoder_2/model.safetensors.index.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer_2/spiece.model",
    "tokenizer_2/tokenizer.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
FLUX_CLUTTER = (
    "flux1-dev.safetensors",
    "ae.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "transformer/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "safety_checker/model.safetensors",
)
FLUX = (*FLUX_BACKBONE, *FLUX_REST, *FLUX_CLUTTER)


def choose(names: tuple[str, ...], part: Part) -> set[str]:
    return set(choose_files(names, part, "hf://org/name"))


def test_a_keras_backbone_is_two_files() -> None:
    names = (*KERAS, *TASK, *CLUTTER)

    assert choose(names, Part.CONFIG) == {"config.json"}
    assert choose(names, Part.BACKBONE) == {"config.json", "model.weights.h5"}
    assert choose(names, Part.PIPELINE) == {*KERAS, *TASK}


def test_whole_keras_weights_win_over_shards_as_in_kerashub() -> None:
    names = ("config.json", "model.weights.h5", "model.weights.json", "model_00000.weights.h5")

    assert choose(names, Part.BACKBONE) == {"config.json", "model.weights.h5"}


def test_the_index_of_shards_comes_last() -> None:
    names = ("config.json", "model.weights.json", "model_00000.weights.h5", "model_1.weights.h5")

    chosen = choose_files(names, Part.BACKBONE, "hf://org/name")

    assert chosen[-1] == "model.weights.json"
    assert set(chosen) == set(names)


def test_a_transformers_pipeline_takes_its_preprocessor_too() -> None:
    names = (*TRANSFORMERS, *CLUTTER, "model.fp16.safetensors", "pytorch_model.bin.index.json")

    assert choose(names, Part.BACKBONE) == {"config.json", "model.safetensors"}
    assert choose(names, Part.PIPELINE) == {*TRANSFORMERS} - {"tf_model.h5"}


def test_a_flux_backbone_is_its_transformer_alone() -> None:
    assert choose(FLUX, Part.CONFIG) == {"model_index.json", "transformer/config.json"}
    assert choose(FLUX, Part.BACKBONE) == {*FLUX_BACKBONE}


def test_a_flux_pipeline_is_every_folder_without_duplicates_variants_and_pickles() -> None:
    assert choose(FLUX, Part.PIPELINE) == {*FLUX_BACKBONE, *FLUX_REST}


@pytest.mark.parametrize("part", [Part.CONFIG, Part.BACKBONE])
def test_an_original_flux_repository_is_one_file(part: Part) -> None:
    names = ("flux1-schnell.safetensors", "ae.safetensors", *CLUTTER)

    assert choose(names, part) == {"flux1-schnell.safetensors"}
    assert choose(names, Part.PIPELINE) == {"flux1-schnell.safetensors", "ae.safetensors"}


def test_an_original_pipeline_takes_single_files_where_it_has_no_folder() -> None:
    single = ("flux1-dev.safetensors", "clip_l.safetensors", "ae.safetensors")
    folder = ("text_encoder_2/config.json", "text_encoder_2/model.safetensors")
    names = (*single, *folder, "t5xxl_fp16.safetensors", "t5xxl_fp8.safetensors", *CLUTTER)

    assert choose(names, Part.PIPELINE) == {*single, *folder}


def test_several_original_transformers_are_not_guessed_among() -> None:
    names = ("flux1-dev.safetensors", "flux1-dev-fp8.safetensors")

    with pytest.raises(PresetFileError, match=r"has several .*: flux1-dev-fp8"):
        choose(names, Part.BACKBONE)


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "weights.pt", "model.ckpt"])
def test_weights_that_are_only_pickles_are_refused(pickle: str) -> None:
    with pytest.raises(PickleError, match=f"hf://org/name has its weights only as.*{pickle}"):
        choose(("config.json", pickle), Part.BACKBONE)


def test_pickles_without_a_configuration_are_refused() -> None:
    with pytest.raises(PickleError, match=r"flux1-dev\.pt"):
        choose(("flux1-dev.pt",), Part.CONFIG)


def test_pickles_in_a_folder_of_a_pipeline_are_refused() -> None:
    names = {*FLUX} - {"vae/diffusion_pytorch_model.safetensors"} | {"vae/model.bin"}

    with pytest.raises(PickleError, match=r"vae/model\.bin"):
        choose(tuple(names), Part.PIPELINE)


def test_missing_weights_are_named_with_where_they_should_be() -> None:
    with pytest.raises(PresetFileError, match=r"has none of model\.safetensors, model\.weights"):
        choose(("config.json", "README.md"), Part.BACKBONE)


def test_names_that_lead_outside_the_repository_are_left_out() -> None:
    names = ("config.json", "model.weights.h5", "assets/../../evil.json", "/assets/evil.json")

    assert choose(names, Part.PIPELINE) == {"config.json", "model.weights.h5"}


LORAS = ("README.md", "ink.safetensors", "sub/oil.safetensors", "image.png")


@pytest.mark.parametrize(
    ("names", "file", "chosen"),
    [
        (LORAS, None, ("ink.safetensors",)),
        (LORAS, "sub/oil.safetensors", ("sub/oil.safetensors",)),
        (
            (*LORAS, "pytorch_lora_weights.safetensors"),
            None,
            ("pytorch_lora_weights.safetensors",),
        ),
        (
            ("adapter_config.json", "adapter_model.safetensors"),
            None,
            ("adapter_config.json", "adapter_model.safetensors"),
        ),
        (
            ("a/adapter_config.json", "a/adapter_model.safetensors", "adapter_config.json"),
            "a/adapter_model.safetensors",
            ("a/adapter_config.json", "a/adapter_model.safetensors"),
        ),
    ],
)
def test_a_lora_is_its_file_and_what_peft_writes_beside_it(
    names: tuple[str, ...], file: str | None, chosen: tuple[str, ...]
) -> None:
    assert choose_files(names, Lora(file), "hf://org/name") == chosen


@pytest.mark.parametrize(
    ("names", "file", "error", "says"),
    [
        ((*LORAS, "b.safetensors"), None, PresetFileError, "several LoRAs: b.safetensors, ink"),
        (LORAS, "oil.safetensors", PresetFileError, "oil.safetensors is none of its .*: ink"),
        (LORAS, "README.md", PresetFileError, "README.md is none of its safetensors files"),
        (("a.png",), None, PresetFileError, "has none of pytorch_lora_weights.safetensors"),
        (("lora.bin",), None, PickleError, "only as pickles"),
        (("../a.safetensors",), "../a.safetensors", PresetFileError, "none of its"),
    ],
)
def test_a_repository_without_just_one_lora_is_refused(
    names: tuple[str, ...], file: str | None, error: type[PresetFileError], says: str
) -> None:
    with pytest.raises(error, match=says):
        choose_files(names, Lora(file), "hf://org/name")
