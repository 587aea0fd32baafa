"""Make the tokenizers and train the T5 and CLIP text encoders of `flux_shapes`.

Both learn to read: every T5 token and CLIP's pooled text must become the code of what the
sentence says, one fixed direction per word of the shapes world, whatever the phrasing. Then they
are frozen. So the transformer gets colours and shapes that are already apart, which lets it paint
combinations that it never saw, and a sentence needs no more than to be read right.
"""

import logging
import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from training.acceleration import compiled, native_autocast
from training.captions import as_typed, caption, filler_sentence
from training.run import Run, train
from training.sentence_forms import DISTRACTIONS_AFTER, DISTRACTIONS_BEFORE
from training.sentence_words import FILLER
from training.shapes_world import (
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    Item,
    Layout,
    Scene,
    all_singles,
    draw_said,
)
from training.warm_start import warm_start

logger = logging.getLogger(__name__)

T5_MAX_TOKENS = 48  # of sentences without typos none is longer
CLIP_MAX_TOKENS = 32  # few are longer; where CLIP misses a word, T5 is believed
WIDTH = 128
BATCH_SIZE = 128
NUM_EMPTY = 2  # of a batch: the empty sentence, from which guidance leads away, has the code zero
NOTHING_SAID_SHARE = 0.05  # sentences from outside the world
PRINTABLE = [chr(code) for code in range(33, 127)]
UNSAID = "unsaid"
LAYOUTS = (Layout.ONE, Layout.ROW, Layout.COLUMN, Layout.THREE)
_ITEM_WORDS = ((*COLOURS, UNSAID), (*SHAPES, UNSAID), (*SIZES, UNSAID))
# What the first features stand for, in order; the rest of the WIDTH is zero.
CODE: tuple[tuple[str, ...], ...] = (
    LAYOUTS, *_ITEM_WORDS, *_ITEM_WORDS, (*PLACES, UNSAID), (*COLOURS, UNSAID),
)  # fmt: skip
PART_OF_FEATURE = [part for part, words in enumerate(CODE) for _ in words]
NEIGHBOUR_BIAS = 4.0  # of attention scores
AFTER = 16  # T5's buckets: those up to here are distances to words before, from here to words after
CODE_SCALE = 4.0  # makes the mean square of the features about 1
# The last layers of the branches that a T5 and a CLIP block add to what goes in.
LAST_OF_BRANCH = ("SelfAttention.o", "DenseReluDense.wo", "self_attn.out_proj", "mlp.fc2")
NOTHING_SAID = Scene(Layout.ONE, (Item(),))


@cache
def _trained_singles() -> tuple[Scene, ...]:
    return tuple(scene for scene in all_singles() if not scene.is_held_out)


def draw_sentence(rng: random.Random, full_share: float = 0.0) -> tuple[Scene, str]:
    """Draw what is said and a sentence as people type it; a share says all of a single shape."""
    if full_share > 0 and rng.random() < full_share:
        said = rng.choice(_trained_singles())
        return said, as_typed(caption(said, rng), rng)
    if rng.random() < NOTHING_SAID_SHARE:
        return NOTHING_SAID, as_typed(filler_sentence(rng), rng)
    said = draw_said(rng)
    return said, as_typed(caption(said, rng), rng)


def code_words(said: Scene) -> tuple[str, ...]:
    """The word of each part of CODE; two shapes without a relation are a row."""
    layout = Layout.ROW if said.layout is Layout.TWO else said.layout
    second = said.items[1] if layout in (Layout.ROW, Layout.COLUMN) else Item()
    parts: list[str] = [layout]
    for item in (said.items[0], second):
        parts += [item.colour or UNSAID, item.shape or UNSAID, item.size or UNSAID]
    return (*parts, said.place or UNSAID, said.background or UNSAID)


def encode_said(scenes: Sequence[Scene]) -> Tensor:
    """The codes, [B, WIDTH]."""
    codes = torch.zeros(len(scenes), WIDTH)
    for row, said in enumerate(scenes):
        first = 0
        for words, word in zip(CODE, code_words(said), strict=True):
            codes[row, first + words.index(word)] = CODE_SCALE
            first += len(words)
    return codes


def share_read(features: Tensor, scenes: Sequence[Scene]) -> float:
    """The share of rows of features [B, WIDTH] whose every word is read right."""
    first, is_right = 0, torch.ones(len(scenes), dtype=torch.bool)
    codes = encode_said(scenes)
    for words in CODE:
        part = slice(first, first + len(words))
        is_right &= features[:, part].argmax(dim=1) == codes[:, part].argmax(dim=1)
        first += len(words)
    return is_right.float().mean().item()


@cache
def _words() -> tuple[str, ...]:
    """The words that sentences are made of."""
    rng = random.Random(0)
    sentences = [caption(draw_said(rng), rng) for _ in range(20_000)]
    sentences += (*DISTRACTIONS_BEFORE, *DISTRACTIONS_AFTER)
    counts = Counter(word for line in sentences for word in re.findall(r"[a-z0-9']+", line))
    return tuple(sorted(set(counts) | set(FILLER)))


def _fragments(words: Sequence[str]) -> list[str]:
    """The usual beginnings and insides of words, for words that were never seen whole."""
    counts: Counter[str] = Counter()
    for word in words:
        counts.update(f"▁{word}"[i : i + n] for n in (2, 3) for i in range(len(word) + 2 - n))
    return [fragment for fragment, count in counts.most_common(700) if count > 2]


def _cases(word: str) -> list[str]:
    """A word as it is, with a capital, and in capitals."""
    return list(dict.fromkeys((word, word.capitalize(), word.upper())))


def build_t5_tokenizer() -> T5Tokenizer:
    """One token a known word, in three cases; fragments and characters for everything else."""
    words = _words()
    pieces = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -4.0}
    pieces |= dict.fromkeys(PRINTABLE, -10.0)
    for word in words:
        for form in _cases(word):
            pieces.setdefault(f"▁{form}", -1.0)
            pieces.setdefault(form, -3.0)  # in "top-left"
    for fragment in _fragments(words):
        for form in (fragment, fragment.upper()):
            pieces.setdefault(form, -9.0)
    return T5Tokenizer(vocab=list(pieces.items()), extra_ids=0, model_max_length=T5_MAX_TOKENS)


def build_clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE, blind to case, whose merges make one token of every known word."""
    # Named first, the last letters have fixed ids; met in the trainer's own random order, which
    # decides ties, they would make another vocabulary each time.
    last_letters = sorted({f"{word[-1]}</w>" for word in _words()})
    trainer = trainers.BpeTrainer(
        vocab_size=5000,
        end_of_word_suffix="</w>",
        min_frequency=1,
        show_progress=False,
        special_tokens=last_letters,
    )
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bpe.train_from_iterator(_words(), trainer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [f"{character}</w>" for character in alphabet]
    trained = bpe.get_vocab()
    tokens += sorted(set(trained) - set(tokens), key=trained.__getitem__)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(merge) for merge in _merges(bpe)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_MAX_TOKENS)


def _merges(bpe: Tokenizer) -> list[list[str]]:
    import json

    merges: list[list[str]] = json.loads(bpe.to_str())["model"]["merges"]
    return merges


def build_encoders(
    t5_tokenizer: T5Tokenizer, clip_tokenizer: CLIPTokenizer
) -> tuple[T5EncoderModel, CLIPTextModel]:
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer),
            d_model=WIDTH,
            d_kv=16,
            num_heads=8,
            d_ff=256,
            num_layers=6,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=WIDTH,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            projection_dim=WIDTH,
            max_position_embeddings=CLIP_MAX_TOKENS,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
        )
    )
    _teach_order(t5)
    return t5, clip


@torch.no_grad()
def _teach_order(t5: T5EncoderModel) -> None:
    """Let heads begin by looking at the word before, the one after, nearby, before and after.

    T5 knows order by its relative position biases alone. They begin near zero and are so few that
    without this the encoder reads a bag of words: which colour is the shape's is a guess.
    """
    biases = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    biases[1, 0] = biases[AFTER + 1, 1] = NEIGHBOUR_BIAS
    biases[1:4, 2] = biases[AFTER + 1 : AFTER + 4, 2] = NEIGHBOUR_BIAS / 2
    biases[1:AFTER, 3:5] = biases[AFTER + 1 :, 5:7] = NEIGHBOUR_BIAS


def warm_start_encoder(
    model: T5EncoderModel | CLIPTextModel,
    tokenizer: T5Tokenizer | CLIPTokenizer,
    earlier: Path,
    earlier_tokenizer: Path,
) -> None:
    """Copy the weights of an earlier encoder; of the embeddings, those of words that it knew."""
    weights = type(model).from_pretrained(earlier).state_dict()
    known = type(tokenizer).from_pretrained(earlier_tokenizer).get_vocab()
    fresh = model.get_input_embeddings().weight.detach()
    rows = [(i, known[token]) for token, i in tokenizer.get_vocab().items() if token in known]
    new, old = torch.tensor(rows).unbind(dim=1)
    for name, weight in weights.items():
        if weight.shape == (len(known), WIDTH):
            weights[name] = fresh.index_copy(0, new, weight[old])
    warm_start(model, weights, gates=LAST_OF_BRANCH)


def train_text_encoders(num_steps: int, work_dir: Path, earlier: Path | None) -> None:
    """Train both and save `text_encoder`, `text_encoder_2`, `tokenizer`, `tokenizer_2`.

    `earlier` is a directory that has these four already, to begin with.
    """
    torch.manual_seed(2)
    t5_tokenizer, clip_tokenizer = build_t5_tokenizer(), build_clip_tokenizer()
    t5, clip = build_encoders(t5_tokenizer, clip_tokenizer)
    if earlier is not None:
        warm_start_encoder(t5, t5_tokenizer, earlier / "text_encoder_2", earlier / "tokenizer_2")
        warm_start_encoder(clip, clip_tokenizer, earlier / "text_encoder", earlier / "tokenizer")
    modules = nn.ModuleList([t5, clip])
    matrices = [
        parameter
        for name, parameter in modules.named_parameters()
        if parameter.ndim == 2 and "embed" not in name and "shared" not in name
        and "bias" not in name
    ]  # fmt: skip
    run = Run("text_encoders", num_steps, 1.5e-3, 0.01, work_dir, matrices)
    lower_ids = lower_case_ids(t5_tokenizer)
    fast_t5, fast_clip = compiled(t5), compiled(clip)

    def loss_at(step: int) -> Tensor:
        rng = random.Random(step)
        drawn = [draw_sentence(rng) for _ in range(BATCH_SIZE)]
        scenes, sentences = [said for said, _ in drawn], [sentence for _, sentence in drawn]
        codes = encode_said(scenes)
        sentences[:NUM_EMPTY], codes[:NUM_EMPTY] = [""] * NUM_EMPTY, 0.0
        with native_autocast():
            text = fast_t5(input_ids=lower_ids[_ids(t5_tokenizer, sentences)]).last_hidden_state
            pooled = fast_clip(input_ids=_ids(clip_tokenizer, sentences)).pooler_output
        text, pooled = text.float(), pooled.float()
        if step % 100 == 99:
            logger.info("text_encoders step=%d all_read_by_t5=%.4f by_clip=%.4f", step + 1,
                        share_read(text.mean(dim=1)[NUM_EMPTY:], scenes[NUM_EMPTY:]),
                        share_read(pooled[NUM_EMPTY:], scenes[NUM_EMPTY:]))  # fmt: skip
        loss: Tensor = (text - codes[:, None]).square().mean() + (pooled - codes).square().mean()
        return loss

    train(run, modules, loss_at)
    with torch.no_grad():  # a word in capitals is read as the word
        t5.shared.weight.copy_(t5.shared.weight[lower_ids])
    t5.eval().save_pretrained(work_dir / "text_encoder_2")
    clip.eval().save_pretrained(work_dir / "text_encoder")
    t5_tokenizer.save_pretrained(work_dir / "tokenizer_2")
    clip_tokenizer.save_pretrained(work_dir / "tokenizer")


def lower_case_ids(tokenizer: T5Tokenizer) -> Tensor:
    """The id of each piece in lower case, [V]; its own id where that is no piece."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    ids = torch.arange(len(vocabulary))
    for piece, i in vocabulary.items():
        ids[i] = vocabulary.get(piece.lower(), i)
    return ids


def _ids(tokenizer: T5Tokenizer | CLIPTokenizer, sentences: list[str]) -> Tensor:
    encoded = tokenizer(sentences, padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids
