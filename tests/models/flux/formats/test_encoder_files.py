"""CLIP and T5 from folders and from single files, against transformers' own loading."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from models.errors import PresetFileError, WeightsError
from models.flux.clip import ClipTextEncoder
from models.flux.formats.encoder_files import load_clip, load_t5
from models.flux.t5 import T5Encoder
from models.flux.text_encoders import TextEncoders
from tests.models.flux.conftest import randomise
from tests.models.flux.original_files import write

Pipelines = dict[str, tuple[FluxPipeline, Path]]
EOS = 90


@pytest.fixture(scope="module")
def clip() -> CLIPTextModel:
    """Of the head width that all of OpenAI's have."""
    config = CLIPTextConfig(
        vocab_size=91,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=128,
        max_position_embeddings=12,
        bos_token_id=89,
        eos_token_id=EOS,
    )
    model = CLIPTextModel(config).eval()
    randomise(model, seed=5)
    return model


@pytest.fixture(scope="module")
def t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=70,
        d_model=32,
        d_kv=8,
        num_heads=3,
        d_ff=40,
        num_layers=2,
        feed_forward_proj="gated-gelu",
    )
    model = T5EncoderModel(config).eval()
    randomise(model, seed=6)
    return model


def stored_clip(clip: CLIPTextModel) -> dict[str, Tensor]:
    """As `clip_l.safetensors` has it."""
    inner = {k.removeprefix("text_model."): v for k, v in clip.state_dict().items()}
    return {f"text_model.{name}": tensor for name, tensor in inner.items()}


def stored_t5(t5: T5EncoderModel) -> dict[str, Tensor]:
    tensors = dict(t5.state_dict())
    del tensors["encoder.embed_tokens.weight"]
    return tensors


@torch.inference_mode()
def check_clip(loaded: ClipTextEncoder, oracle: CLIPTextModel) -> None:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, EOS, (3, 12), generator=generator)
    ids[:, 7:] = EOS
    expected = oracle(input_ids=ids).pooler_output
    torch.testing.assert_close(loaded(ids), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def check_t5(loaded: T5Encoder, oracle: T5EncoderModel) -> None:
    ids = torch.randint(0, 70, (2, 40), generator=torch.Generator().manual_seed(2))
    expected = oracle(input_ids=ids).last_hidden_state
    torch.testing.assert_close(loaded(ids), expected, atol=1e-5, rtol=0)


def test_folders_load_as_transformers_loads_them(
    tmp_path: Path, clip: CLIPTextModel, t5: T5EncoderModel
) -> None:
    clip.save_pretrained(tmp_path / "text_encoder")
    t5.save_pretrained(tmp_path / "text_encoder_2", max_shard_size="10KB")
    assert len(list((tmp_path / "text_encoder_2").glob("*.safetensors"))) > 1

    check_clip(load_clip(tmp_path, EOS, "cpu", None), clip)
    check_t5(load_t5(tmp_path, "cpu", None), t5)


def test_single_files_need_no_configuration(
    tmp_path: Path, clip: CLIPTextModel, t5: T5EncoderModel
) -> None:
    write(tmp_path / "clip_l.safetensors", stored_clip(clip))
    write(tmp_path / "t5xxl_fp16.safetensors", stored_t5(t5))

    check_clip(load_clip(tmp_path, EOS, "cpu", None), clip)
    check_t5(load_t5(tmp_path, "cpu", None), t5)


def test_an_all_in_one_file_gives_its_encoders(
    tmp_path: Path, clip: CLIPTextModel, t5: T5EncoderModel
) -> None:
    inside = "text_encoders.{}.transformer.{}"
    merged = {inside.format("clip_l", name): each for name, each in stored_clip(clip).items()}
    merged |= {inside.format("t5xxl", name): each for name, each in stored_t5(t5).items()}
    merged["text_encoders.clip_l.logit_scale"] = torch.ones(())
    write(tmp_path / "flux1-dev-merged.safetensors", merged)

    check_clip(load_clip(tmp_path, EOS, "cpu", None), clip)
    check_t5(load_t5(tmp_path, "cpu", None), t5)


def test_what_older_programs_stored_beside_the_weights_is_ignored(
    tmp_path: Path, clip: CLIPTextModel, t5: T5EncoderModel
) -> None:
    more = {
        "logit_scale": torch.ones(()),
        "text_projection.weight": torch.ones(128, 128),
        "text_model.embeddings.position_ids": torch.arange(12)[None],
    }
    write(tmp_path / "clip_l.safetensors", stored_clip(clip) | more)
    twice = {"encoder.embed_tokens.weight": t5.shared.weight.clone()}
    write(tmp_path / "t5xxl.safetensors", stored_t5(t5) | twice)

    check_clip(load_clip(tmp_path, EOS, "cpu", None), clip)
    check_t5(load_t5(tmp_path, "cpu", None), t5)


def test_a_float8_encoder_computes_in_bfloat16(tmp_path: Path, t5: T5EncoderModel) -> None:
    stored = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in stored_t5(t5).items()}
    write(tmp_path / "t5xxl_fp8_e4m3fn.safetensors", stored)

    loaded = load_t5(tmp_path, "cpu", None)

    wanted = {name: tensor.bfloat16() for name, tensor in stored.items()}
    torch.testing.assert_close(dict(loaded.state_dict()), wanted, atol=0, rtol=0)


def test_an_embedding_under_its_other_name_is_found(tmp_path: Path, t5: T5EncoderModel) -> None:
    tensors = stored_t5(t5)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    write(tmp_path / "t5xxl.safetensors", tensors)

    check_t5(load_t5(tmp_path, "cpu", None), t5)


def test_what_overflows_in_float16_stays_in_float32(tmp_path: Path, t5: T5EncoderModel) -> None:
    t5.save_pretrained(tmp_path / "text_encoder_2")

    loaded = load_t5(tmp_path, "cpu", torch.float16)

    oracle = T5EncoderModel.from_pretrained(tmp_path / "text_encoder_2", dtype=torch.float16)
    dtypes = {name: tensor.dtype for name, tensor in stored_t5(oracle).items()}
    assert {name: tensor.dtype for name, tensor in loaded.state_dict().items()} == dtypes
    assert set(dtypes.values()) == {torch.float16, torch.float32}


def test_what_does_not_fit_is_named(
    tmp_path: Path, clip: CLIPTextModel, t5: T5EncoderModel
) -> None:
    fewer = stored_clip(clip)
    del fewer["text_model.final_layer_norm.bias"]
    write(tmp_path / "clip_l.safetensors", fewer)
    write(tmp_path / "t5xxl.safetensors", stored_t5(t5) | {"lm_head.weight": torch.ones(1)})

    with pytest.raises(WeightsError, match=r"missing: text_model\.final_layer_norm\.bias"):
        load_clip(tmp_path, EOS, "cpu", None)
    with pytest.raises(WeightsError, match=r"left over: lm_head\.weight"):
        load_t5(tmp_path, "cpu", None)


def test_a_width_that_tells_no_number_of_heads_is_refused(
    tmp_path: Path, clip: CLIPTextModel
) -> None:
    name = "text_model.embeddings.token_embedding.weight"
    write(tmp_path / "clip_l.safetensors", stored_clip(clip) | {name: torch.ones(91, 100)})

    with pytest.raises(PresetFileError, match="width 100; without a configuration, multiples of"):
        load_clip(tmp_path, EOS, "cpu", None)


def test_several_files_of_one_encoder_are_refused(tmp_path: Path, t5: T5EncoderModel) -> None:
    for name in ("t5xxl_fp16", "t5xxl_fp8_e4m3fn"):
        write(tmp_path / f"{name}.safetensors", stored_t5(t5))

    with pytest.raises(PresetFileError, match=r"holds t5xxl_fp16.safetensors, t5xxl_fp8_e4m3fn"):
        load_t5(tmp_path, "cpu", None)


@pytest.mark.parametrize("length", [1, 5, 48])
def test_prompts_are_padded_or_cut_to_the_length_that_is_asked_for(
    pipelines: Pipelines, length: int
) -> None:
    oracle, directory = pipelines["schnell"]
    prompts = ["a red circle", "red " * 100]

    features = TextEncoders.from_directory(directory, "cpu", None).encode(prompts, length)

    text, pooled, _ = oracle.encode_prompt(prompts, None, max_sequence_length=length)
    torch.testing.assert_close(features.text, text, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pooled, pooled, atol=1e-5, rtol=0)
    assert features.num_tokens == (min(4, length), length)
    assert features.truncated == (length < 4, True)


@pytest.mark.parametrize("length", [0, 49, 513])
def test_a_length_that_the_preset_does_not_read_is_refused(
    pipelines: Pipelines, length: int
) -> None:
    encoders = TextEncoders.from_directory(pipelines["schnell"][1], "cpu", None)

    with pytest.raises(ValueError, match=rf"max_sequence_length {length} is not in 1 … 48"):
        encoders.encode(["a red circle"], length)


def test_pickles_are_not_read(pipelines: Pipelines, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(pipelines["dev"][1], tmp_path / "flux"))
    file = directory / "text_encoder/model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()

    with pytest.raises(PresetFileError, match=r"model\.safetensors is missing"):
        TextEncoders.from_directory(directory, "cpu", None)
