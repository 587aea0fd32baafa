"""What packed weights cost in accuracy: the bundled presets, on scenes that are drawn here."""

import random
from collections.abc import Sequence
from itertools import groupby

import pytest
import torch
from PIL import Image
from torch import Tensor

from models.fnet.text_embedder import TextEmbedder
from models.layers import packing
from models.layers.onednn import multiplies
from models.vit.image_classifier import ImageClassifier
from training.captions import caption
from training.measure import draw_labelled
from training.shapes_world import all_singles

SEED = 20260
NUM_SCENES = 100
needs_int8 = pytest.mark.skipif(
    not multiplies(torch.int8), reason="this processor has no products in int8"
)
# texts of which nearly all tokens are padding lose most
ODD_TEXTS = ["", " ", "\U0001f642\U0001f643", "~{}|`", "ÀÉÎ", "日本語の文" * 9, "x" * 300]

pytestmark = pytest.mark.skipif(
    not multiplies(torch.bfloat16), reason="this processor has no packed products"
)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    rng, classifier = random.Random(SEED), ImageClassifier.from_preset("vit_shapes")
    images = [Image.fromarray(draw_labelled(rng).image) for _ in range(NUM_SCENES)]
    return torch.stack([classifier.preprocess(image) for image in images])


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(SEED)
    return [caption(scene, rng) for scene in rng.sample(list(all_singles()), NUM_SCENES)]


def classifier(dtype: torch.dtype | None = None) -> ImageClassifier:
    loaded = ImageClassifier.from_preset("vit_shapes")
    if dtype is not None:
        loaded.pack(dtype)
    return loaded


def embed(texts: Sequence[str], dtype: torch.dtype | None = None) -> Tensor:
    embedder = TextEmbedder.from_preset("f_net_shapes")
    if dtype is not None:
        embedder.pack(dtype)
    tokenized = sorted(map(embedder.tokenize, texts), key=lambda text: len(text.token_ids))
    batches = groupby(tokenized, key=lambda text: len(text.token_ids))
    return torch.cat([embedder.embed(list(batch)) for _, batch in batches])


@pytest.fixture
def packs_small_layers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SMALL", {torch.float32: 0, torch.bfloat16: 0})


@pytest.mark.usefixtures("packs_small_layers_too")
def test_packed_in_float32_an_image_has_the_logits_that_it_had(pixels: Tensor) -> None:
    logits = classifier(torch.float32).logits(pixels[:20])

    torch.testing.assert_close(logits, classifier().logits(pixels[:20]), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("packs_small_layers_too")
def test_packed_in_float32_a_text_has_the_embedding_that_it_had(texts: list[str]) -> None:
    embeddings = embed(texts[:20], torch.float32)

    torch.testing.assert_close(embeddings, embed(texts[:20]), atol=1e-5, rtol=1e-4)


def test_products_in_bfloat16_change_no_label(pixels: Tensor) -> None:
    chosen = classifier(torch.bfloat16).logits(pixels).argmax(dim=-1)

    assert (chosen == classifier().logits(pixels).argmax(dim=-1)).float().mean() >= 0.999


def test_products_in_bfloat16_hardly_turn_an_embedding(texts: list[str]) -> None:
    texts = [*texts, *ODD_TEXTS]

    cosines = (embed(texts, torch.bfloat16) * embed(texts)).sum(dim=-1)

    assert cosines.min() >= 0.9999


@needs_int8
def test_products_in_int8_change_hardly_a_label(pixels: Tensor) -> None:
    chosen = classifier(torch.int8).logits(pixels).argmax(dim=-1)

    assert (chosen == classifier().logits(pixels).argmax(dim=-1)).float().mean() >= 0.99


@needs_int8
def test_products_in_int8_turn_an_embedding_little(texts: list[str]) -> None:
    texts = [*texts, *ODD_TEXTS]

    cosines = (embed(texts, torch.int8) * embed(texts)).sum(dim=-1)

    assert cosines.min() >= 0.999


@needs_int8
def test_in_int8_an_image_has_the_logits_in_a_batch_that_it_has_alone(pixels: Tensor) -> None:
    packed = classifier(torch.int8)

    together, alone = packed.logits(pixels[:5]), packed.logits(pixels[:1])

    torch.testing.assert_close(together[:1], alone, atol=0.05, rtol=0.01)
    assert packed.logits(pixels[:0]).shape == (0, len(packed.labels))
