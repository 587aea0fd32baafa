"""TextEmbedder: tokenizer, pooling, and the bundled `f_net_shapes`."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import FNetConfig, FNetForPreTraining, FNetTokenizer

from models.errors import InputError, PresetFileError, TextTooLongError
from models.execution.execution import Execution
from models.fnet.text_embedder import Pooling, TextEmbedder, save_to_preset
from models.fnet.tokenizer import TokenizedText, TruncationSide
from models.load import load_pipeline
from models.presets import get_preset
from tests.models.random_weights import randomise

RECORDED = Path(__file__).parent / "recorded"
ADVERSARIAL = ["", " ", "\n\t", "日本語の文", "🙂🙃", "a\x00b", "[CLS] [SEP] <pad>", "ÀÉÎ", "~{}|`"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
VOCABULARY = Path(get_preset("f_net_shapes").handle) / "assets/tokenizer/vocabulary.spm"


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    return TextEmbedder.from_preset("f_net_shapes")


def embed(embedder: TextEmbedder, text: str) -> torch.Tensor:
    return embedder.embed([embedder.tokenize(text)])[0]


@pytest.mark.parametrize("text", ADVERSARIAL)
def test_any_text_can_be_embedded(embedder: TextEmbedder, text: str) -> None:
    embedding = embed(embedder, text)

    assert embedding.dtype == torch.float32
    assert embedding.norm().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("text", ADVERSARIAL[3:])
def test_no_character_is_unknown(embedder: TextEmbedder, text: str) -> None:
    unknown_id = embedder.tokenizer.vocabulary.id_of("<unk>")

    assert unknown_id not in embedder.tokenize(text).token_ids


def test_a_special_piece_in_the_text_is_only_characters(embedder: TextEmbedder) -> None:
    empty = embedder.tokenize("")
    start, end = empty.token_ids[:2]

    spelled = embedder.tokenize("[CLS] [SEP]")

    assert spelled.token_ids.count(start) == 1
    assert spelled.token_ids.count(end) == 1
    assert spelled.num_tokens > 4


@pytest.mark.parametrize(
    ("num_words", "padded_length"),
    [(0, 32), (30, 32), (31, 64), (62, 64), (63, 128), (254, 256), (255, 512), (510, 512)],
)
def test_a_text_is_padded_to_the_next_length(
    embedder: TextEmbedder, num_words: int, padded_length: int
) -> None:
    text = embedder.tokenize(" ".join(["red"] * num_words))

    assert text.num_tokens == num_words + 2
    assert len(text.token_ids) == padded_length


def test_too_long_a_text_is_refused(embedder: TextEmbedder) -> None:
    with pytest.raises(TextTooLongError, match="513 tokens; at most 512"):
        embedder.tokenize(" ".join(["red"] * 511))


def test_a_text_is_embedded_alone_as_in_a_batch(embedder: TextEmbedder) -> None:
    texts = [embedder.tokenize(f"a {colour} star") for colour in ("red", "blue", "green")]

    alone = torch.cat([embedder.embed([text]) for text in texts])

    torch.testing.assert_close(embedder.embed(texts), alone, atol=1e-6, rtol=0)


def test_the_embedding_is_the_mean_over_the_real_tokens(embedder: TextEmbedder) -> None:
    text = embedder.tokenize("a red ring")
    token_ids = torch.tensor([text.token_ids])

    outputs = embedder.backbone(token_ids=token_ids, segment_ids=torch.zeros_like(token_ids))

    mean = outputs["sequence_output"][0, : text.num_tokens].mean(dim=0)
    torch.testing.assert_close(embed(embedder, "a red ring"), mean / mean.norm())


def test_a_text_can_be_embedded_as_its_first_token(embedder: TextEmbedder) -> None:
    text = embedder.tokenize("a red ring")

    sequence_output = embedder.encode([text])

    first = sequence_output[0, 0]
    torch.testing.assert_close(embedder.embed([text], pooling="cls")[0], first / first.norm())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_embedding_can_keep_its_length(embedder: TextEmbedder, pooling: Pooling) -> None:
    text = embedder.tokenize("a red ring")

    [embedding] = embedder.embed([text], pooling, normalizes=False)

    assert embedding.norm().item() != pytest.approx(1.0, abs=0.01)
    torch.testing.assert_close(
        embedding / embedding.norm(), embedder.embed([text], pooling)[0], atol=1e-6, rtol=0
    )


def test_a_text_may_come_as_its_token_ids(embedder: TextEmbedder) -> None:
    ids = embedder.tokenizer.vocabulary.encode("a red ring")

    assert embedder.tokenize(ids) == embedder.tokenize("a red ring")


@pytest.mark.parametrize("wrong", [-1, 10**9])
def test_a_token_id_outside_the_vocabulary_is_refused(embedder: TextEmbedder, wrong: int) -> None:
    most = embedder.vocabulary_size - 1

    with pytest.raises(InputError, match=f"token id {wrong}; 0 to {most} are allowed"):
        embedder.tokenize([0, most, wrong])


@pytest.mark.parametrize(("side", "kept"), [("right", range(100, 610)), ("left", range(101, 611))])
def test_a_text_is_cut_where_it_is_said(
    embedder: TextEmbedder, side: TruncationSide, kept: range
) -> None:
    text = embedder.tokenize(range(100, 611), side)

    assert text.is_truncated
    assert text.token_ids[1:-1] == tuple(kept)
    assert (text.token_ids[0], text.token_ids[-1]) == embedder.tokenize("").token_ids[:2]


def test_a_text_that_fits_is_not_cut(embedder: TextEmbedder) -> None:
    assert embedder.tokenize("a red ring", "left") == embedder.tokenize("a red ring")


def test_texts_of_several_lengths_are_not_embedded_together(embedder: TextEmbedder) -> None:
    long = TokenizedText(token_ids=(2,) * 64, num_tokens=40)

    with pytest.raises(ValueError, match=r"padded to \[32, 64\]"):
        embedder.embed([embedder.tokenize("red"), long])


def test_a_paraphrase_is_nearer_than_another_scene(embedder: TextEmbedder) -> None:
    caption = embed(embedder, "a large red circle on a white background at the left")
    paraphrase = embed(embedder, "on a white background a big red circle in the left")
    swapped = embed(embedder, "a large white circle on a red background at the left")

    assert caption @ paraphrase > 0.8
    assert caption @ paraphrase > caption @ swapped + 0.3


def test_the_preset_is_loaded_by_name_with_its_width() -> None:
    embedder = load_pipeline("f_net_shapes")

    assert isinstance(embedder, TextEmbedder)
    assert (embedder.embedding_width, embedder.max_tokens) == (128, 512)


def test_the_embedding_of_a_transformers_directory_equals_its_own(tmp_path: Path) -> None:
    config = FNetConfig(vocab_size=90, hidden_size=8, num_hidden_layers=2, intermediate_size=12)
    oracle = FNetForPreTraining(config).eval()
    randomise(oracle)
    oracle.save_pretrained(tmp_path)
    tokenizer = FNetTokenizer.from_pretrained(RECORDED / "transformers_4_fast")
    tokenizer.save_pretrained(tmp_path)
    text = "The quick brown fox, 12, jumps over the lazy [MASK]"

    embedder = load_pipeline(tmp_path)

    assert isinstance(embedder, TextEmbedder)
    row = tokenizer(text, padding="max_length", max_length=64, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        features = oracle.fnet(input_ids=row).last_hidden_state[0]
    mean = features[row[0] != tokenizer.pad_token_id].mean(dim=0)
    torch.testing.assert_close(embed(embedder, text), mean / mean.norm(), atol=1e-5, rtol=0)
    [first] = embedder.embed([embedder.tokenize(text)], "cls", normalizes=False)
    torch.testing.assert_close(first, features[0], atol=1e-5, rtol=0)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert embedder.tokenize(ids) == embedder.tokenize(text)


def test_a_keras_hub_preset_is_embedded() -> None:
    embedder = load_pipeline(RECORDED / "masked_lm")

    assert isinstance(embedder, TextEmbedder)
    assert embed(embedder, "the quick fox").shape == (8,)


def test_half_a_surrogate_pair_is_refused(embedder: TextEmbedder) -> None:
    with pytest.raises(InputError, match="half a surrogate pair"):
        embedder.tokenize("\ud83d")


def test_a_missing_vocabulary_is_named(embedder: TextEmbedder, tmp_path: Path) -> None:
    embedder.backbone.save_to_preset(tmp_path)

    with pytest.raises(PresetFileError, match=r"vocabulary\.spm is missing"):
        TextEmbedder.from_preset(tmp_path)


def test_a_damaged_vocabulary_is_named(embedder: TextEmbedder, tmp_path: Path) -> None:
    save_to_preset(embedder.backbone, VOCABULARY, tmp_path)
    vocabulary = tmp_path / "assets/tokenizer/vocabulary.spm"
    vocabulary.write_bytes(VOCABULARY.read_bytes()[:1000])

    with pytest.raises(PresetFileError, match=r"vocabulary\.spm is not a SentencePiece file"):
        TextEmbedder.from_preset(tmp_path)


def test_products_in_float8_give_nearly_the_same_embedding() -> None:
    embedder = TextEmbedder.from_preset("f_net_shapes", dtype=torch.bfloat16)
    texts = [embedder.tokenize("a red circle on white")]
    expected = embedder.embed(texts)
    embedder.execute(Execution(float8_products=True))
    cosine = (embedder.embed(texts) * expected).sum()
    assert 0.99 < cosine < 1 - 1e-7
