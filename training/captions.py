"""Sentences for scenes of the shapes world, as people type them.

A sentence is an opening, phrases for what is said (in any order) and an ending, all of them from
the lists of `sentence_words` and `sentence_forms`. `as_typed` adds capitals, full stops, typos,
telegram style, and words that say nothing.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from training.sentence_forms import (
    AFTER_PLACE,
    ARTICLES,
    BACKGROUNDS,
    BEFORE_PLACE,
    COLUMN_FORMS,
    DISTRACTIONS_AFTER,
    DISTRACTIONS_BEFORE,
    ENDINGS,
    LATE_SIZES,
    LATE_SIZES_OF_ALL,
    LATE_SIZES_OF_BOTH,
    LEADING_BACKGROUNDS,
    LEADING_SEPARATORS,
    NO_COLOUR_NOUNS,
    NO_SHAPE_NOUNS,
    NOTHING_NOUNS,
    NOUNS,
    OPENINGS,
    PAIR_FORMS,
    PLAIN_NOUNS,
    REFERRING_COLUMN_FORMS,
    REFERRING_ROW_FORMS,
    ROW_FORMS,
    SEPARATORS,
)
from training.sentence_words import (
    AFTER_COUNTS,
    COLOUR_WORDS,
    CORNER_FORMS,
    CORNER_PHRASES,
    CORNER_WORDS,
    COUNT_ENDS,
    COUNTS,
    FILLER,
    SHAPE_WORDS,
    SIDE_WORDS,
    SIZE_WORDS,
    VERY,
)
from training.shapes_world import SHAPES, Item, Layout, Scene

TYPO_SHARE, FILLER_SHARE, TELEGRAM_SHARE, DISTRACTION_SHARE = 0.22, 0.15, 0.2, 0.06
LATE_SIZE_SHARE = 0.15  # of those that are said
COLOUR_LIKE = tuple(word for words in COLOUR_WORDS.values() for word in words)
SIZE_LIKE = tuple(word for words in SIZE_WORDS.values() for word in words)
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
    if rng.random() < DISTRACTION_SHARE:
        sentence = _with_distraction(sentence, rng)
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
    item, after = said.items[0], [] if said.place is None else [_place(said.place, rng)]
    if item.size is not None and rng.random() < LATE_SIZE_SHARE:
        after.append(_late_size(LATE_SIZES, item.size, rng))
        item = replace(item, size=None)
    body = _noun(item, rng, with_article=True)
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
    items, late_size = said.items, None
    if len({item.size for item in items}) == 1 and rng.random() < 2 * LATE_SIZE_SHARE:
        late_size = items[0].size
        items = tuple(replace(item, size=None) for item in items)
    if items.count(items[0]) == len(items):
        body = _counted(items[0], len(items), rng)
    else:
        body = _pair(said.layout, items, rng)
    if late_size is not None:
        forms = LATE_SIZES_OF_ALL + (LATE_SIZES_OF_BOTH if len(items) == 2 else ())
        body += rng.choice(SEPARATORS) + _late_size(forms, late_size, rng)
    if said.background is None:
        return body
    if rng.random() < 0.2:
        return _say(rng.choice(LEADING_BACKGROUNDS), rng, background=said.background) + body
    behind = _say(rng.choice(BACKGROUNDS), rng, background=said.background)
    return body + rng.choice(SEPARATORS) + behind


def _counted(item: Item, count: int, rng: random.Random) -> str:
    if rng.random() < 0.15:
        noun = _noun(item, rng, is_plural=rng.random() < 0.6)
        return noun + rng.choice(AFTER_COUNTS[count])
    noun = _noun(item, rng, is_plural=True)
    return f"{rng.choice(COUNTS[count])} {noun}{rng.choice(COUNT_ENDS)}"


def _late_size(forms: Sequence[str], size: str, rng: random.Random) -> str:
    return rng.choice(forms).format(size=rng.choice(SIZE_WORDS[size]), very=rng.choice(VERY))


def _pair(layout: Layout, items: Sequence[Item], rng: random.Random) -> str:
    forms = {Layout.ROW: ROW_FORMS, Layout.COLUMN: COLUMN_FORMS, Layout.TWO: PAIR_FORMS}
    referring = {Layout.ROW: REFERRING_ROW_FORMS, Layout.COLUMN: REFERRING_COLUMN_FORMS}
    first, second = (_noun(item, rng, with_article=True) for item in items)
    short = _short_names(items)
    is_referring = layout in referring and short is not None and rng.random() < 0.15
    form = rng.choice(referring[layout] if is_referring else forms[layout])
    the_first, the_second = short or ("", "")
    return form.format(
        left=first, right=second, upper=first, lower=second,
        the_left=the_first, the_right=the_second, the_upper=the_first, the_lower=the_second,
    )  # fmt: skip


def _short_names(items: Sequence[Item]) -> tuple[str, str] | None:
    """Name two shapes by what tells them apart; None where nothing does."""
    first, second = items
    is_unclear = {first.shape, second.shape} == {"circle", "ring"}  # "the hollow circle"
    if first.shape and second.shape and first.shape != second.shape and not is_unclear:
        return f"the {first.shape}", f"the {second.shape}"
    if first.colour and second.colour and first.colour != second.colour:
        return f"the {first.colour} one", f"the {second.colour} one"
    return None


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
    if item.size:
        return [form for form in forms if "{size}" in form]
    return [form for form in forms if not form.startswith("something {size}")]


def plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith(("s", "x")) else f"{shape}s"


def _place(place: str, rng: random.Random) -> str:
    if place in SIDE_WORDS:
        words = rng.choice(SIDE_WORDS[place])
    elif rng.random() < 0.25:
        words = rng.choice(CORNER_PHRASES[place])
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


def _with_distraction(sentence: str, rng: random.Random) -> str:
    """Say something besides in words that elsewhere would say something about the scene."""
    size, colour, shape = (rng.choice(w) for w in (SIZE_LIKE, COLOUR_LIKE, SHAPES))
    is_before = rng.random() < 0.6
    form = rng.choice(DISTRACTIONS_BEFORE if is_before else DISTRACTIONS_AFTER)
    extra = form.format(size=size, colour=colour, shape=shape)
    return extra + sentence if is_before else sentence + extra


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
    """Swap, drop, double or replace one letter in one or two words of three letters or more."""
    words = sentence.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 3]
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
