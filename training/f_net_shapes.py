"""Make the preset `f_net_shapes`: `python -m training.f_net_shapes --work-dir DIR --output DIR`.

First the SentencePiece vocabulary, then the backbone, contrastively: of a batch of scenes, two
sentences for the same scene attract each other and all others repel (InfoNCE, both directions).
"""

import argparse
import io
import logging
import random
from dataclasses import replace
from pathlib import Path

import torch
from sentencepiece import SentencePieceTrainer
from torch import Tensor
from torch.nn import functional as F

from models.fnet.backbone import FNetBackbone
from models.fnet.text_embedder import embed, save_to_preset
from models.fnet.tokenizer import TokenizedText, Tokenizer
from models.fnet.vocabulary import SentencePieceVocabulary
from training.run import Run, train
from training.shapes_world import COLOURS, POSITIONS, SHAPES, SIZES, Scene, all_scenes, caption

logger = logging.getLogger(__name__)

VOCABULARY_SIZE = 640  # 256 bytes, every printable ASCII character, and the grammar's words
MAX_TOKENS = 512
NUM_SCENES = 64  # in a batch; with the neighbours of each, 128 pairs
TEMPERATURE = 0.07
NUM_SENTENCES = {1: 0.88, 3: 0.1, 6: 0.02}  # of a text: how often, so that no length is strange


def train_vocabulary(file: Path) -> None:
    """Train SentencePiece on captions; every text can be encoded."""
    rng = random.Random(4)
    scenes = list(all_scenes())
    captions = [spoken(rng.choice(scenes), rng) for _ in range(20_000)]
    printable = [chr(code) for code in range(33, 127)]
    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(captions + [" ".join(printable)] * 20),
        model_writer=trained,
        vocab_size=VOCABULARY_SIZE,
        model_type="bpe",
        character_coverage=1.0,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc_cf",  # Large is large
        required_chars="".join(printable),
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        pad_piece="<pad>",
        num_threads=1,
        minloglevel=2,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(trained.getvalue())


def spoken(scene: Scene, rng: random.Random) -> str:
    """A caption, at times with a capital or a full stop."""
    sentence = caption(scene, rng)
    if rng.random() < 0.2:
        sentence = sentence.capitalize()
    return f"{sentence}." if rng.random() < 0.2 else sentence


def build_backbone(vocabulary_size: int) -> FNetBackbone:
    return FNetBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=3,
        hidden_dim=128,
        intermediate_dim=256,
        dropout=0.0,
        max_sequence_length=MAX_TOKENS,
    )


def neighbour(scene: Scene, rng: random.Random) -> Scene:
    """A scene that differs in one word, or swaps the colours of shape and background."""
    values = {"colour": tuple(COLOURS), "shape": SHAPES, "size": SIZES, "position": POSITIONS,
              "background": tuple(COLOURS)}  # fmt: skip
    while True:
        name = rng.choice((*values, "swap"))
        if name == "swap":
            return replace(scene, colour=scene.background, background=scene.colour)
        other = replace(scene, **{name: rng.choice(values[name])})
        if other != scene and other.colour != other.background:
            return other


def pairs(tokenizer: Tokenizer, seed: int) -> tuple[list[TokenizedText], list[TokenizedText]]:
    """Draw two texts for each of many different scenes."""
    rng = random.Random(seed)
    drawn = rng.sample(list(all_scenes()), NUM_SCENES)
    near = [neighbour(scene, rng) for scene in drawn]
    scenes = list(dict.fromkeys(drawn + near))
    num_sentences = rng.choices(list(NUM_SENTENCES), list(NUM_SENTENCES.values()))[0]

    def texts(num_sentences: int) -> list[TokenizedText]:
        return [
            tokenizer(" ".join(spoken(scene, rng) for _ in range(num_sentences)))
            for scene in scenes
        ]

    return texts(1), texts(num_sentences)


def embed_all(backbone: FNetBackbone, texts: list[TokenizedText]) -> Tensor:
    """Embed texts of any padded lengths, [N, D], one forward a length."""
    rows: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        rows.setdefault(len(text.token_ids), []).append(i)
    embedded = [embed(backbone, [texts[i] for i in members]) for members in rows.values()]
    order = torch.tensor([i for members in rows.values() for i in members])
    return torch.cat(embedded)[order.argsort()]


def train_embedder(backbone: FNetBackbone, tokenizer: Tokenizer, run: Run) -> float:
    """Train in place; return the seconds that it took."""
    backbone.train()

    def loss_at(step: int) -> Tensor:
        first, second = pairs(tokenizer, seed=step)
        scores = embed_all(backbone, first) @ embed_all(backbone, second).T / TEMPERATURE
        targets = torch.arange(len(scores))
        return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2

    return train(run, backbone, loss_at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True, help="for the checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="the directory of the preset")
    parser.add_argument("--num-steps", type=int, default=1200)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(1)
    vocabulary = arguments.work_dir / "vocabulary.spm"
    if not vocabulary.is_file():
        train_vocabulary(vocabulary)
    tokenizer = Tokenizer(SentencePieceVocabulary(vocabulary), MAX_TOKENS)
    backbone = build_backbone(tokenizer.vocabulary_size)
    run = Run("f_net_shapes", arguments.num_steps, 1.5e-3, 0.01, arguments.work_dir)
    seconds = train_embedder(backbone, tokenizer, run)
    save_to_preset(backbone, vocabulary, arguments.output)
    logger.info("f_net_shapes saved=%s seconds=%.0f", arguments.output, seconds)


if __name__ == "__main__":
    main()
