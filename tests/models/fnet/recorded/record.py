"""Let KerasHub and transformers 4 record ids of the corpus; run by hand, once with each.

    KERAS_BACKEND=torch python -m tests.models.fnet.recorded.record vocabulary keras_hub masked_lm
    python -m tests.models.fnet.recorded.record transformers

`vocabulary` trains the small vocabulary anew. Versions: KerasHub 0.32.0 and SentencePiece 0.2.3;
transformers 4.57.6. Knows nothing about our tokenizers.
"""

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.models.fnet.corpus import LENGTHS, PAIRS, SENTENCES, TEXTS, TRIPLES, TRUNCATIONS

HERE = Path(__file__).parent
VOCABULARY = HERE / "vocabulary.spm"
CASE_FOLDING = HERE / "case_folding.spm"  # 640 pieces, nmt_nfkc_cf
SETTINGS: tuple[dict[str, bool], ...] = (
    {},
    {"do_lower_case": True},
    {"keep_accents": False},
    {"remove_space": False},
    {"do_lower_case": True, "keep_accents": False, "remove_space": False},
)


def record_vocabulary() -> None:
    from sentencepiece import SentencePieceTrainer

    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 9),
        model_writer=trained,
        vocab_size=180,
        hard_vocab_limit=False,
        normalization_rule_name="identity",  # a table of normal forms is a quarter of a megabyte
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        pad_piece="<pad>",
        control_symbols=["[CLS]", "[SEP]"],
        user_defined_symbols=["[MASK]", "12,", "▁7,"],
        num_threads=1,
        minloglevel=2,
    )
    VOCABULARY.write_bytes(trained.getvalue())


def record_keras_hub() -> None:
    import keras_hub

    def ids_of(vocabulary: Path, **settings: object) -> list[list[int]]:
        tokenizer = keras_hub.models.FNetTokenizer(proto=str(vocabulary), **settings)
        return [[int(token_id) for token_id in tokenizer(text)] for text in TEXTS]

    def packed(length: int, truncate: str, segments: tuple[str, ...]) -> dict[str, list[int]]:
        preprocessor = keras_hub.models.FNetTextClassifierPreprocessor(
            keras_hub.models.FNetTokenizer(proto=str(VOCABULARY)), length, truncate
        )
        return {name: ids.tolist() for name, ids in preprocessor(x=segments).items()}

    recorded = {
        "small": ids_of(VOCABULARY),
        "case_folding": ids_of(CASE_FOLDING),
        "settings": ids_of(VOCABULARY, add_bos=True, add_eos=True, sequence_length=9),
        "packed": [
            packed(length, truncate, segments)
            for length in LENGTHS
            for truncate in TRUNCATIONS
            for segments in PAIRS + TRIPLES
        ],
    }
    (HERE / "keras_hub.json").write_text(json.dumps(recorded, separators=(",", ":")))


def record_masked_lm() -> None:
    import keras
    import keras_hub
    import numpy as np

    generator = np.random.default_rng(7)
    backbone = keras_hub.models.FNetBackbone(87, 2, 8, 12, max_sequence_length=64)
    tokenizer = keras_hub.models.FNetTokenizer(proto=str(VOCABULARY))
    preprocessor = keras_hub.models.FNetMaskedLMPreprocessor(tokenizer, sequence_length=64)
    task = keras_hub.models.FNetMaskedLM(backbone, preprocessor)
    for variable in task.weights:
        centre = 1.0 if variable.name == "gamma" else 0.0
        variable.assign(centre + 0.3 * generator.standard_normal(variable.shape))
    token_ids = generator.integers(0, 87, (2, 11), dtype=np.int32)
    segment_ids = generator.integers(0, 4, (2, 11), dtype=np.int32)
    positions = generator.integers(0, 11, (2, 3), dtype=np.int32)
    inputs = {"token_ids": token_ids, "segment_ids": segment_ids, "mask_positions": positions}
    logits = keras.ops.convert_to_numpy(task(inputs, training=False))
    task.save_to_preset(str(HERE / "masked_lm"))
    np.savez(
        HERE / "masked_lm/case.npz",
        token_ids=token_ids,
        segment_ids=segment_ids,
        mask_positions=positions,
        logits=logits,
    )


def record_transformers() -> None:
    from transformers import FNetTokenizer, FNetTokenizerFast

    recorded = []
    with tempfile.TemporaryDirectory() as folder:
        spiece = Path(folder, "spiece.model")
        spiece.write_bytes(VOCABULARY.read_bytes())
        for settings in SETTINGS:
            tokenizer = FNetTokenizer(str(spiece), **settings)
            ids = [tokenizer(text)["input_ids"] for text in TEXTS]
            recorded.append({"settings": settings, "ids": ids})
        FNetTokenizerFast(str(spiece)).save_pretrained(HERE / "transformers_4_fast")
    (HERE / "transformers_4.json").write_text(json.dumps(recorded, separators=(",", ":")))


RECORDERS: dict[str, Callable[[], None]] = {
    "vocabulary": record_vocabulary,
    "keras_hub": record_keras_hub,
    "masked_lm": record_masked_lm,
    "transformers": record_transformers,
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        RECORDERS[name]()
