"""Sentences for scenes of the shapes world, as people type them.

A sentence is an opening, phrases for what is said (in any order) and an ending, all of them from
the lists of `sentence_parts`. `as_typed` adds capitals, full stops and typos.
"""

import random
import re
from collections.abc import Sequence

from training.sentence_parts import (
    AFTER_PLACE,
    ARTICLES,
    BACKGROUNDS,
    BEFORE_PLACE,
    COLOUR_WORDS,
    COLUMN_FORMS,
    CORNER_FORMS,
    CORNER_WORDS,
    COUNT_ENDS,
    COUNTS,
    ENDINGS,
    FILLER,
    LEADING_BACKGROUNDS,
    LEADING_SEPARATORS,
    NO_COLOUR_NOUNS,
    NO_SHAPE_NOUNS,
    NOTHING_NOUNS,
    NOUNS,
    OPENINGS,
    PAIR_FORMS,
    PLAIN_NOUNS,
    ROW_FORMS,
    SEPARATORS,
    SHAPE_WORDS,
    SIDE_WORDS,
    SIZE_WORDS,
    VERY,
)
from training.shapes_world import Item, Layout, Scene

TYPO_SHARE, FILLER_SHARE, TELEGRAM_SHARE = 0.15, 0.15, 0.2
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Nothing that is said hangs on these alone.
SMALL_WORDS = frozenset(
    {"a", "an", "the", "is", "it", "that", "which", "and", "me", "my", "in", "at", "with", "some"}
)


def caption(said: Scene, rng: random.Random) -> str:
    """Draw a sentence that says exactly `said`, in lower case and without a full stop."""
    body = _single(said, rng) if said.layout is Layout.ONE else _several(said, rng)
    sentence = rng.choice(OPENINGS) + body + rng.choice(ENDINGS)
    return _with_articles(sentence)


def as_typed(sentence: str, rng: random.Random) -> str:
    """Add what hurried people add: capitals, full stops, typos, words that say nothing."""
    if rng.random() < TELEGRAM_SHARE:
        sentence = _without_small_words(sentence, rng)
    if rng.random() < FILLER_SHARE:
        sentence = _with_filler(sentence, rng)
    if rng.random() < TYPO_SHARE:
        sentence = _with_typos(sentence, rng)
    case = rng.random()
    if case < 0.2:
        sentence = sentence[:1].upper() + sentence[1:]
    elif case < 0.25:
        sentence = sentence.upper()
    elif case < 0.28:
        sentence = sentence.title()
    end = rng.random()
    return sentence + ("." if end < 0.2 else "!" if end < 0.23 else "?" if end < 0.25 else "")


def filler_sentence(rng: random.Random) -> str:
    """Draw a sentence that says nothing about the shapes world."""
    if rng.random() < 0.2:
        return _invented_word(rng)
    return " ".join(rng.choice(FILLER) for _ in range(rng.randint(1, 12)))


def _single(said: Scene, rng: random.Random) -> str:
    body = _noun(said.items[0], rng, with_article=True)
    after = [] if said.place is None else [_place(said.place, rng)]
    lead = ""
    if said.background is not None:
        if rng.random() < 0.2:
            lead = _say(rng.choice(LEADING_BACKGROUNDS), rng, background=said.background)
        else:
            after.append(_say(rng.choice(BACKGROUNDS), rng, background=said.background))
    rng.shuffle(after)
    if after and lead == "" and rng.random() < 0.25:
        body, after = after[0] + rng.choice(LEADING_SEPARATORS) + body, after[1:]
    return lead + body + "".join(rng.choice(SEPARATORS) + phrase for phrase in after)


def _several(said: Scene, rng: random.Random) -> str:
    if said.items.count(said.items[0]) == len(said.items):
        count = rng.choice(COUNTS[len(said.items)])
        body = f"{count} {_noun(said.items[0], rng, is_plural=True)}{rng.choice(COUNT_ENDS)}"
    else:
        first, second = (_noun(item, rng, with_article=True) for item in said.items)
        forms = {Layout.ROW: ROW_FORMS, Layout.COLUMN: COLUMN_FORMS, Layout.TWO: PAIR_FORMS}
        form = rng.choice(forms[said.layout])
        body = form.format(left=first, right=second, upper=first, lower=second)
    if said.background is None:
        return body
    if rng.random() < 0.2:
        return _say(rng.choice(LEADING_BACKGROUNDS), rng, background=said.background) + body
    behind = _say(rng.choice(BACKGROUNDS), rng, background=said.background)
    return body + rng.choice(SEPARATORS) + behind


def _noun(
    item: Item, rng: random.Random, with_article: bool = False, is_plural: bool = False
) -> str:
    forms = _noun_forms(item)
    shape = rng.choice(SHAPE_WORDS[item.shape]) if item.shape else ""
    if is_plural:  # only the forms in which the plural ends the noun
        forms = tuple(form for form in forms if form.endswith("{shape}")) or forms[:1]
        shape = plural(shape)
    noun = rng.choice(forms).format(
        size=rng.choice(SIZE_WORDS[item.size]) if item.size else "",
        colour=rng.choice(COLOUR_WORDS[item.colour]) if item.colour else "",
        shape=shape,
        very=rng.choice(VERY),
    )
    noun = re.sub(r"\s+", " ", noun).strip(" ,")
    return rng.choice(ARTICLES) + noun if with_article else noun


def _noun_forms(item: Item) -> Sequence[str]:
    if item.colour and item.shape:
        return NOUNS if item.size else PLAIN_NOUNS
    if item.shape:
        return NO_COLOUR_NOUNS if item.size else ("{shape}", "nice {shape}", "simple {shape}")
    forms = NO_SHAPE_NOUNS if item.colour else NOTHING_NOUNS
    return [f for f in forms if item.size or not f.startswith("something {size}")]


def plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith(("s", "x")) else f"{shape}s"


def _place(place: str, rng: random.Random) -> str:
    if place in SIDE_WORDS:
        words = rng.choice(SIDE_WORDS[place])
    else:
        words = rng.choice(CORNER_FORMS).format(corner=rng.choice(CORNER_WORDS[place]))
    return rng.choice(BEFORE_PLACE) + words + rng.choice(AFTER_PLACE)


def _say(pattern: str, rng: random.Random, background: str) -> str:
    return pattern.format(a="the", background=rng.choice(COLOUR_WORDS[background]))


def _with_articles(sentence: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", sentence)


def _with_filler(sentence: str, rng: random.Random) -> str:
    """Put words that say nothing before, after or, rarely, into a sentence."""
    extra = filler_sentence(rng) if rng.random() < 0.5 else rng.choice(FILLER)
    extra = " ".join(extra.split()[:6])
    place = rng.random()
    if place < 0.45:
        return f"{extra}{rng.choice((' ', ', ', '. ', ': '))}{sentence}"
    if place < 0.85:
        return f"{sentence}{rng.choice((' ', ', ', '. '))}{extra}"
    words = sentence.split()
    words.insert(rng.randint(0, len(words)), rng.choice(FILLER))
    return " ".join(words)


def _without_small_words(sentence: str, rng: random.Random) -> str:
    """Leave small words out, or put others in their place, as in telegrams and broken English."""
    kept = []
    for word in sentence.split(" "):
        chance = rng.random() if word in SMALL_WORDS else 1.0
        if chance >= 0.5:
            kept.append(word)
        elif chance >= 0.4:
            kept.append(rng.choice(FILLER))
    return " ".join(kept)


def _with_typos(sentence: str, rng: random.Random) -> str:
    """Swap, drop, double or replace one letter in one or two words of four letters or more."""
    words = sentence.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 4]
    for i in rng.sample(long, min(len(long), rng.choice((1, 1, 2)))):
        word, at = words[i], rng.randrange(1, len(words[i]) - 1)
        words[i] = rng.choice(
            (
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[:at] + rng.choice(LETTERS) + word[at + 1 :],
            )
        )
    return " ".join(words)


def _invented_word(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 9)))
