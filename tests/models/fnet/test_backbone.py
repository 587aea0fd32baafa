"""FNetBackbone against transformers' FNet, and its own promises."""

from pathlib import Path

import pytest
import torch
from transformers import FNetConfig, FNetModel

from models import FNetBackbone
from tests.models.random_weights import randomise

TOLERANCE = 1e-5  # float32; the order of additions differs


@pytest.fixture
def backbone() -> FNetBackbone:
    backbone = FNetBackbone(20, 2, 8, 12, max_sequence_length=16)
    randomise(backbone)
    return backbone.eval()


@pytest.fixture
def oracle() -> FNetModel:
    config = FNetConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=2,
        intermediate_size=12,
        max_position_embeddings=16,
        type_vocab_size=4,
    )
    model = FNetModel(config).eval()
    randomise(model, seed=1)
    return model


@pytest.mark.parametrize("length", [1, 11, 16])
def test_outputs_equal_those_of_transformers(
    oracle: FNetModel, tmp_path: Path, length: int
) -> None:
    oracle.save_pretrained(tmp_path)
    backbone = FNetBackbone.from_preset(tmp_path)
    token_ids, segment_ids = torch.randint(0, 20, (3, length)), torch.randint(0, 4, (3, length))

    outputs = backbone(token_ids=token_ids, segment_ids=segment_ids)

    expected = oracle(input_ids=token_ids, token_type_ids=segment_ids)
    sequence_output, pooled_output = expected.last_hidden_state, expected.pooler_output
    torch.testing.assert_close(outputs["sequence_output"], sequence_output, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(outputs["pooled_output"], pooled_output, atol=TOLERANCE, rtol=0)


def test_the_transform_is_taken_in_float32_in_a_bfloat16_backbone(backbone: FNetBackbone) -> None:
    token_ids = torch.randint(0, 20, (1, 16))
    exact = backbone(token_ids=token_ids, segment_ids=torch.zeros_like(token_ids))

    rough = backbone.bfloat16()(token_ids=token_ids, segment_ids=torch.zeros_like(token_ids))

    assert rough["sequence_output"].dtype == torch.bfloat16
    cosine = torch.cosine_similarity(exact["pooled_output"], rough["pooled_output"].float())
    assert cosine.item() > 0.99


def test_more_tokens_than_positions_are_refused(backbone: FNetBackbone) -> None:
    token_ids = torch.zeros(1, 17, dtype=torch.long)

    with pytest.raises(ValueError, match="17 tokens; at most 16"):
        backbone(token_ids=token_ids, segment_ids=token_ids)


def test_the_base_model_has_its_published_parameter_count() -> None:
    with torch.device("meta"):
        backbone = FNetBackbone(32_000, 12, 768, 3072)

    assert sum(parameter.numel() for parameter in backbone.parameters()) == 82_861_056
    assert backbone.token_embedding is backbone.embeddings.token_embedding


def test_the_token_embedding_runs_in_reverse() -> None:
    backbone = FNetBackbone(20, 1, 8, 12, max_sequence_length=16)
    features = torch.randn(2, 3, 8)

    scores = backbone.token_embedding(features, reverse=True)

    torch.testing.assert_close(scores, features @ backbone.token_embedding.weight.T)
