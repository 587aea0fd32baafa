"""Model cards: what a worker says of each model that it serves, once the model is loaded.

A card never changes, so it lies in Redis under its own digest: workers with equal cards share one,
and the API reads each once. `workers` says which worker serves which card. Free of torch.
"""

import hashlib
from collections.abc import Collection, Sequence
from functools import cached_property

from pydantic import BaseModel, ConfigDict
from redis import Redis

from worker.contract.jobs import Task
from worker.contract.script_prelude import ALLOW_OOM

MAX_ASPECT = 3  # OpenAI's: images are 1:3 to 3:1
# ARGV: key, card, ttl_s. On a server that is full as well: a model without a card is not served.
_WRITE = ALLOW_OOM + "redis.call('SET', ARGV[1], ARGV[2], 'EX', ARGV[3])"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer worker may say more


class ImageLimits(_Frozen):
    """What a text-to-image model takes. Sizes in pixels."""

    default_width: int
    default_height: int
    side_multiple: int  # autoencoder 8 times patch 2
    min_side: int
    max_side: int
    max_pixels: int
    default_num_steps: int
    low_num_steps: int | None = None  # of the lowest quality; None: half of the default
    max_num_steps: int
    default_guidance_scale: float | None  # None: no guidance embedding
    max_guidance_scale: float | None  # None likewise
    default_true_cfg_scale: float  # where there is a negative prompt
    max_true_cfg_scale: float
    max_sequence_length: int  # T5 tokens of a prompt; a longer one is cut
    max_images: int  # per request
    max_tokens_at_once: int | None = None  # of texts and images in one forward; None: no limit
    overlaps: bool = False  # texts are encoded and images decoded while others are denoised
    loras: tuple[str, ...] = ()  # what is attached, by the names that requests choose from


class ModelCard(_Frozen):
    """One model as a worker holds it; of the last six fields those of its task are set."""

    name: str
    task: Task
    family: str  # the backbone's class, such as "FluxBackbone"
    description: str | None = None
    license: str | None = None
    source: str | None = None  # a hub's handle; None: files of the worker's host
    revision: str | None = None  # the hub's, or a digest of the files
    # of all that results follow from: files, LoRAs, software; None: that is not known
    results_digest: str | None = None
    num_parameters: int  # of all parts
    memory_bytes: int  # of the parameters
    dtype: str
    device: str
    image_limits: ImageLimits | None = None
    labels: tuple[str, ...] | None = None
    embedding_width: int | None = None
    max_tokens: int | None = None  # of one text to embed, with the special ones
    num_special_tokens: int | None = None  # that each text is given besides its own
    vocabulary_size: int | None = None  # token ids are below

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def card_key(digest: str) -> str:
    return f"triptych:card:{digest}"


def keep(redis: Redis, cards: Collection[ModelCard], ttl_s: int) -> None:
    """Renew the cards; write those that are not there."""
    if not cards:
        return
    with redis.pipeline(transaction=False) as pipeline:
        for card in cards:
            pipeline.expire(card_key(card.digest), ttl_s)
        is_there = pipeline.execute()
    missing = [card for card, found in zip(cards, is_there, strict=True) if not found]
    if missing:
        write = redis.register_script(_WRITE)
        for card in missing:
            write(args=[card_key(card.digest), card.model_dump_json(), ttl_s])


def read(redis: Redis, digests: Sequence[str]) -> dict[str, ModelCard]:
    """The cards that are there, by digest."""
    found = redis.mget([card_key(digest) for digest in digests]) if digests else []
    return {
        digest: ModelCard.model_validate_json(written)
        for digest, written in zip(digests, found, strict=True)
        if written is not None
    }
