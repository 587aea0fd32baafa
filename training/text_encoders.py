"""Make the tokenizers and train the T5 and CLIP text encoders of `flux_shapes`.

Both learn to read: from their features a linear layer must name the five words of the scene. The
features are then frozen, so the transformer gets colours and shapes that are already apart, which
is what lets it paint a combination that it never saw.
"""

import logging
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from training.pictures import seen_scenes
from training.shapes_world import (
    COLOURS,
    POSITIONS,
    SHAPES,
    SIZES,
    Scene,
    caption,
    partial_caption,
)

logger = logging.getLogger(__name__)

MAX_TOKENS = 24  # the longest caption has 16 words
WIDTH = 128
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": SIZES,
    "position": POSITIONS,
    "background": tuple(COLOURS),
}
PRINTABLE = [chr(code) for code in range(33, 127)]


def varied_caption(scene: Scene, rng: random.Random, partial_share: float) -> str:
    """A caption as people type: sometimes partial, with a capital or a full stop."""
    is_partial = rng.random() < partial_share
    sentence = partial_caption(scene, rng) if is_partial else caption(scene, rng)
    if rng.random() < 0.2:
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + "." if rng.random() < 0.15 else sentence


def _words() -> list[str]:
    rng = random.Random(0)
    scenes = seen_scenes()
    captions = [varied_caption(rng.choice(scenes), rng, 0.3) for _ in range(20_000)]
    return sorted({word.strip(",.").lower() for line in captions for word in line.split()})


def build_t5_tokenizer() -> T5Tokenizer:
    """One token a word of the grammar, one a character for everything else."""
    words = _words()
    words += [word.capitalize() for word in words]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(character, -10.0) for character in PRINTABLE]
    pieces += [(f"▁{word}", -1.0) for word in words]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)


def build_clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE whose merges make one token of every word of the grammar."""
    words = _words()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, end_of_word_suffix="</w>", min_frequency=1, show_progress=False
    )
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bpe.train_from_iterator(words, trainer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [f"{character}</w>" for character in alphabet]
    trained = bpe.get_vocab()
    tokens += sorted(set(trained) - set(tokens), key=trained.__getitem__)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(merge) for merge in _merges(bpe)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def _merges(bpe: Tokenizer) -> list[list[str]]:
    import json

    merges: list[list[str]] = json.loads(bpe.to_str())["model"]["merges"]
    return merges


class Reader(nn.Module):
    """Linear heads over features [B, D], one per attribute; thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({k: nn.Linear(WIDTH, len(v)) for k, v in ATTRIBUTES.items()})

    def loss(self, features: Tensor, targets: dict[str, Tensor]) -> Tensor:
        losses = [
            F.cross_entropy(head(features), targets[name], ignore_index=-100)
            for name, head in self.heads.items()
        ]
        return torch.stack(losses).sum()

    def accuracy(self, features: Tensor, targets: dict[str, Tensor]) -> float:
        right = [
            (head(features).argmax(-1) == targets[name])[targets[name] != -100].float().mean()
            for name, head in self.heads.items()
        ]
        return torch.stack(right).min().item()


def _targets(scenes: list[Scene], captions: list[str]) -> dict[str, Tensor]:
    """Class ids [B] per attribute; -100 where the caption leaves the attribute out."""
    synonyms = {"large": ("big",), "small": ("little",), "center": ("middle", "centre")}
    targets = {}
    for name, values in ATTRIBUTES.items():
        ids = []
        for scene, sentence in zip(scenes, captions, strict=True):
            value = getattr(scene, name)
            said = any(word in sentence.lower() for word in (value, *synonyms.get(value, ())))
            ids.append(values.index(value) if said else -100)
        targets[name] = torch.tensor(ids)
    return targets


def train_text_encoders(directory: Path, num_steps: int, batch_size: int = 128) -> None:
    """Train both and save `text_encoder`, `text_encoder_2`, `tokenizer`, `tokenizer_2`."""
    torch.manual_seed(2)
    rng = random.Random(2)
    t5_tokenizer, clip_tokenizer = build_t5_tokenizer(), build_clip_tokenizer()
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer),
            d_model=WIDTH,
            d_kv=32,
            num_heads=4,
            d_ff=256,
            num_layers=3,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=WIDTH,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            projection_dim=WIDTH,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
        )
    )
    t5_reader, clip_reader = Reader(), Reader()
    modules = nn.ModuleList([t5, clip, t5_reader, clip_reader])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=num_steps)
    scenes = seen_scenes()
    for step in (bar := trange(num_steps, desc="text encoders")):
        batch = rng.choices(scenes, k=batch_size)
        captions = [varied_caption(scene, rng, 0.3) for scene in batch]
        targets = _targets(batch, captions)
        text = t5(input_ids=_ids(t5_tokenizer, captions)).last_hidden_state.mean(dim=1)
        pooled = clip(input_ids=_ids(clip_tokenizer, captions)).pooler_output
        loss = t5_reader.loss(text, targets) + clip_reader.loss(pooled, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        if step % 100 == 99:
            logger.info(
                "text_encoders step=%d loss=%.4f t5=%.4f clip=%.4f",
                step + 1,
                loss.item(),
                t5_reader.accuracy(text, targets),
                clip_reader.accuracy(pooled, targets),
            )
    t5.eval().save_pretrained(directory / "text_encoder_2")
    clip.eval().save_pretrained(directory / "text_encoder")
    t5_tokenizer.save_pretrained(directory / "tokenizer_2")
    clip_tokenizer.save_pretrained(directory / "tokenizer")


def _ids(tokenizer: T5Tokenizer | CLIPTokenizer, captions: list[str]) -> Tensor:
    encoded = tokenizer(
        captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids
    return ids
