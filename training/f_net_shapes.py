"""Make the preset `f_net_shapes`: `python -m training.f_net_shapes --work-dir DIR --output DIR`.

First the SentencePiece vocabulary, then the backbone, contrastively (InfoNCE): of a batch of
scenes, two sentences for the same scene attract each other and all others repel, most of all
those for a scene that differs in one word. A sentence that leaves something out is drawn, more
softly, to all the scenes that it fits.
"""

import argparse
import io
import logging
import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from sentencepiece import SentencePieceTrainer
from torch import Tensor
from torch.nn import functional as F

from models.fnet.backbone import FNetBackbone
from models.fnet.text_embedder import encode, pool, save_to_preset
from models.fnet.tokenizer import TokenizedText, Tokenizer
from models.fnet.vocabulary import SentencePieceVocabulary
from training.captions import as_typed, caption
from training.run import Run, train
from training.sentence_words import FILLER
from training.shapes_world import (
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    Item,
    Layout,
    Scene,
    draw_said,
    single,
)

logger = logging.getLogger(__name__)

VOCABULARY_SIZE = 1200  # 256 bytes, every printable ASCII character, the words of the captions
MAX_TOKENS = 512
NUM_SCENES = 32  # in a batch; with the neighbours of each, 64
TEMPERATURE = 0.07
PARTIAL_WEIGHT, PARTIAL_TEMPERATURE = 0.25, 0.1
FULL_SINGLE_SHARE = 0.4  # of the scenes; the others are drawn as for the image model
HURRIED_SHARE = 0.3  # of the first sentences; all second ones are as people type
NUM_SENTENCES = {1: 0.92, 3: 0.06, 6: 0.02}  # of a text: how often, so that no length is strange


def train_vocabulary(file: Path) -> None:
    """Train SentencePiece on captions; every text can be encoded."""
    rng = random.Random(4)
    captions = [caption(draw_said(rng, held_out=True), rng) for _ in range(20_000)]
    fillers = [" ".join(rng.sample(FILLER, 10)) for _ in range(2_000)]
    printable = [chr(code) for code in range(33, 127)]
    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(captions + fillers + [" ".join(printable)] * 20),
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


def build_backbone(vocabulary_size: int) -> FNetBackbone:
    return FNetBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=4,
        hidden_dim=128,
        intermediate_dim=256,
        dropout=0.0,
        max_sequence_length=MAX_TOKENS,
    )


def draw_scene(rng: random.Random) -> Scene:
    """Draw what a sentence says, held-out combinations too."""
    if rng.random() >= FULL_SINGLE_SHARE:
        return draw_said(rng, held_out=True)
    colour, background = rng.sample(tuple(COLOURS), 2)
    return single(colour, rng.choice(SHAPES), rng.choice(SIZES), rng.choice(PLACES), background)


def in_order(said: Scene) -> Scene:
    """Order the shapes of a scene that does not say how they lie."""
    if said.layout is not Layout.TWO:
        return said
    return replace(said, items=tuple(sorted(said.items, key=repr)))


def is_sayable(said: Scene) -> bool:
    """Whether no shape has the background's colour and only counted shapes are all equal."""
    colours = [item.colour for item in said.items if item.colour is not None]
    is_counted = said.layout in (Layout.TWO, Layout.THREE)
    return said.background not in colours and (is_counted or len(set(said.items)) > 1 or
                                               said.layout is Layout.ONE)  # fmt: skip


def neighbour(said: Scene, rng: random.Random) -> Scene:
    """A scene that is said with almost the same words and is another one."""
    while True:
        other = in_order(_changed(said, rng))
        if is_sayable(other) and other != in_order(said):
            return other


def _changed(said: Scene, rng: random.Random) -> Scene:
    """Swap things, turn the relation, or change one word that was said."""
    kind = rng.random()
    if len(set(said.items)) > 1 and kind < 0.5:
        return _turned(said, rng)
    first = said.items[0]
    if said.background and first.colour and kind < 0.35:
        swapped = _with_item(said, 0, replace(first, colour=said.background))
        return replace(swapped, background=first.colour)
    if said.background and kind < 0.45:
        return replace(said, background=rng.choice(tuple(COLOURS)))
    if (said.place or first == Item()) and kind < 0.6:  # of "anything" only a place can change
        return replace(said, place=rng.choice(PLACES))
    if len(set(said.items)) == 1 and said.layout is not Layout.ONE and kind < 0.7:
        count = 5 - len(said.items)
        layout = Layout.TWO if count == 2 else Layout.THREE
        return replace(said, layout=layout, items=(first,) * count)
    index = rng.randrange(len(said.items))
    return _with_item(said, index, _changed_item(said.items[index], rng))


def _turned(said: Scene, rng: random.Random) -> Scene:
    """Swap the two shapes, or only their colours, or say another relation."""
    left, right = said.items
    kind = rng.random()
    if kind < 0.45:
        return replace(said, items=(right, left))
    if kind < 0.75:
        colours = (replace(left, colour=right.colour), replace(right, colour=left.colour))
        return replace(said, items=colours)
    return replace(said, layout=rng.choice((Layout.ROW, Layout.COLUMN, Layout.TWO)))


def _changed_item(item: Item, rng: random.Random) -> Item:
    """Say another colour, shape or size, of those that were said."""
    changes = [
        replace(item, colour=item.colour and rng.choice(tuple(COLOURS))),
        replace(item, shape=item.shape and rng.choice(SHAPES)),
        replace(item, size=item.size and rng.choice(SIZES)),
    ]
    return rng.choice(changes)


def _with_item(said: Scene, index: int, item: Item) -> Scene:
    """Exchange one shape; equal ones stay equal."""
    if len(set(said.items)) == 1:
        return replace(said, items=(item,) * len(said.items))
    items = list(said.items)
    items[index] = item
    return replace(said, items=tuple(items))


def partial(said: Scene, rng: random.Random) -> Scene:
    """Leave out about half of what a scene says beside its shapes, seldom a shape or a colour."""

    def kept(value: str | None, share: float) -> str | None:
        return value if rng.random() < share else None

    colour, shape, size = (rng.random() < share for share in (0.92, 0.92, 0.4))
    items = tuple(
        Item(item.colour if colour else None, item.shape if shape else None,
             item.size if size else None)
        for item in said.items
    )  # fmt: skip
    return in_order(Scene(said.layout, items, kept(said.place, 0.4), kept(said.background, 0.3)))


def fits(less: Scene, said: Scene) -> bool:
    """Whether a scene says all that another one says."""
    if less.layout is not said.layout:
        return False
    pairs = [(less.place, said.place), (less.background, said.background)]
    for one, other in zip(less.items, said.items, strict=True):
        pairs += [(one.colour, other.colour), (one.shape, other.shape), (one.size, other.size)]
    return all(wanted is None or wanted == has for wanted, has in pairs)


@dataclass(frozen=True, slots=True)
class Batch:
    scenes: list[Scene]  # all different
    first: list[str]
    second: list[str]  # two texts for each scene
    partial: list[str]  # and one that leaves something out
    fitting: Tensor  # [N, N] bool: whether partial i fits scene j


def draw_batch(seed: int) -> Batch:
    """Draw texts for many different scenes, each of them with a neighbour."""
    rng = random.Random(seed)
    drawn = [in_order(draw_scene(rng)) for _ in range(NUM_SCENES)]
    near = [neighbour(said, rng) for said in drawn]
    scenes = list(dict.fromkeys(drawn + near))
    num_sentences = rng.choices(list(NUM_SENTENCES), list(NUM_SENTENCES.values()))[0]
    less = [partial(said, rng) for said in scenes]
    fitting = [[fits(one, said) for said in scenes] for one in less]
    return Batch(
        scenes,
        [_spoken(said, rng, HURRIED_SHARE) for said in scenes],
        [" ".join(_spoken(said, rng, 1.0) for _ in range(num_sentences)) for said in scenes],
        [_spoken(one, rng, HURRIED_SHARE) for one in less],
        torch.tensor(fitting) | torch.eye(len(scenes), dtype=torch.bool),
    )


def _spoken(said: Scene, rng: random.Random, hurried_share: float) -> str:
    """Draw a sentence; for shapes without a relation, in any order."""
    if said.layout is Layout.TWO and rng.random() < 0.5:
        said = replace(said, items=said.items[::-1])
    sentence = caption(said, rng)
    return as_typed(sentence, rng) if rng.random() < hurried_share else sentence


def embed_all(backbone: FNetBackbone, texts: list[TokenizedText]) -> Tensor:
    """Embed texts of any padded lengths, [N, D], one forward a length."""
    rows: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        rows.setdefault(len(text.token_ids), []).append(i)
    batches = [[texts[i] for i in members] for members in rows.values()]
    embedded = [pool(encode(backbone, batch), batch) for batch in batches]
    order = torch.tensor([i for members in rows.values() for i in members])
    return torch.cat(embedded)[order.argsort()]


def contrast(first: Tensor, second: Tensor, less: Tensor, fitting: Tensor) -> Tensor:
    """Pull equal rows of embeddings [N, D] together, and the partial ones to what they fit."""
    scores = first @ second.T / TEMPERATURE
    targets = torch.arange(len(scores))
    same = (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2
    shares = fitting.float() / fitting.sum(dim=1, keepdim=True)
    return same + PARTIAL_WEIGHT * F.cross_entropy(less @ first.T / PARTIAL_TEMPERATURE, shares)


def train_embedder(backbone: FNetBackbone, tokenizer: Tokenizer, run: Run) -> float:
    """Train in place; return the seconds that it took."""
    backbone.train()

    def loss_at(step: int) -> Tensor:
        batch = draw_batch(seed=step)
        texts = [tokenizer(text) for text in batch.first + batch.second + batch.partial]
        first, second, less = embed_all(backbone, texts).chunk(3)
        if step % 100 == 99:
            found = (first @ second.T).argmax(dim=1)
            right = (found == torch.arange(len(first))).float().mean().item()
            logger.info("f_net_shapes step=%d found=%.3f", step + 1, right)
        return contrast(first, second, less, batch.fitting)

    return train(run, backbone, loss_at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True, help="for the checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="the directory of the preset")
    parser.add_argument("--num-steps", type=int, default=3000)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(1)
    vocabulary = arguments.work_dir / "f_net_vocabulary.spm"
    if not vocabulary.is_file():
        train_vocabulary(vocabulary)
    tokenizer = Tokenizer(SentencePieceVocabulary(vocabulary), MAX_TOKENS)
    backbone = build_backbone(tokenizer.vocabulary_size)
    run = Run("f_net_shapes", arguments.num_steps, 1.5e-3, 0.01, arguments.work_dir)
    seconds = train_embedder(backbone, tokenizer, run)
    save_to_preset(backbone, vocabulary, arguments.output, weights_format="safetensors")
    logger.info("f_net_shapes saved=%s seconds=%.0f", arguments.output, seconds)


if __name__ == "__main__":
    main()
