"""Images for `vit_shapes`: drawn afresh, or painted by the image model, then augmented.

An image shows one shape, several or none, half of them as the shapes world lays them. It is drawn
with colours a little off, maybe shown in a screenshot, resampled or sent through JPEG; then, as
tensors, most are bent, moved, blurred, blotched and tinted. Knows nothing about models.
"""

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from training.shapes_world import (
    COLOURS,
    SHAPES,
    Item,
    Placed,
    complete,
    draw_mask,
    draw_said,
    labels,
    place_items,
)

Rgb = tuple[int, int, int]

NO_SHAPE, SEVERAL = "no shape", "several"
LABELS = (*labels(), NO_SHAPE, SEVERAL)

SIDE = 80  # pixels; drawn as the backbone sees it
SUPERSAMPLING = 3
HALF_RANGE = 127.5  # grey levels: pixels become [-1, 1]

NO_SHAPE_SHARE, SCENE_SHARE, SCATTERED_SHARE = 0.05, 0.55, 0.1  # the rest: one shape anywhere
OWN_SHARE = 0.25  # of all images, where there are such
AUGMENTED_SHARE = 0.7
OFF_COLOUR_SHARE = 0.3
MAX_OFFSET = 25  # sRGB levels
PALE_OR_DULL = frozenset({"white", "black", "gray", "brown"})  # half the offset
NAME_MARGIN = 20.0  # sRGB distance: a colour that is off is nearer to its own name by this
LEAST_CONTRAST = 50.0  # sRGB distance of a shape and what is behind it
SOFT_SHARE, SCREENSHOT_SHARE, RESAMPLED_SHARE, JPEG_SHARE = 0.15, 0.08, 0.25, 0.25
LEAST_RADIUS = 0.08  # of the side; smaller ones cannot be told apart
LEAST_RADIUS_PIXELS = 4.5  # after the image was made smaller
SMALLEST_SIDE = 24  # pixels
FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


@dataclass(frozen=True, slots=True)
class DrawnImage:
    image: Image.Image
    label: str
    radius: float  # of the smallest shape, as a fraction of the side


@dataclass(frozen=True, slots=True)
class Batch:
    images: Tensor  # [B, H, W, 3] in [-1, 1]
    class_ids: Tensor  # [B]


def draw_batch(seed: int, size: int, own: Sequence[DrawnImage] = ()) -> Batch:
    """Draw and augment a batch; the seed decides about all of it.

    `own` are images of SIDE that `flux_shapes` painted: OWN_SHARE of the batch is drawn from them.
    """
    rng = random.Random(seed)
    drawn = [
        rng.choice(own) if own and rng.random() < OWN_SHARE else draw_image(rng)
        for _ in range(size)
    ]
    images = [np.asarray(_shown(each, rng)) for each in drawn]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() / HALF_RANGE - 1.0
    augmented = augment(pixels, torch.Generator().manual_seed(seed))
    class_ids = [LABELS.index(each.label) for each in drawn]
    return Batch(augmented.permute(0, 2, 3, 1), torch.tensor(class_ids))


def draw_image(rng: random.Random) -> DrawnImage:
    """Draw one shape, several or none."""
    kind = rng.random()
    if kind < NO_SHAPE_SHARE:
        return DrawnImage(draw_backdrop([], rng), NO_SHAPE, 0.5)
    names = list(COLOURS)
    if kind < NO_SHAPE_SHARE + SCENE_SHARE:
        scene = complete(draw_said(rng, held_out=True), rng)
        placed = place_items(scene, rng)
        chosen = [item.colour or "red" for item in scene.items]
    elif kind < NO_SHAPE_SHARE + SCENE_SHARE + SCATTERED_SHARE:
        placed = _scatter(rng.randint(2, 4), rng)
        chosen = rng.choices(names, k=len(placed))
        chosen = chosen[:1] * len(chosen) if rng.random() < 0.4 else chosen
    else:
        placed, chosen = [_place_anywhere(rng.choice(SHAPES), rng)], [rng.choice(names)]
    label = SEVERAL if len(placed) > 1 else Item(chosen[0], placed[0].shape).label
    image = _painted(placed, chosen, rng)
    return DrawnImage(image, label, min(shape.radius for shape in placed))


def _place_anywhere(shape: str, rng: random.Random) -> Placed:
    """Place a shape of any size and angle, at the edge slightly cut."""
    radius = math.exp(rng.uniform(math.log(0.1), math.log(0.42)))
    x, y = (rng.uniform(0.85 * radius, 1 - 0.85 * radius) for _ in range(2))
    turn = rng.choice((math.radians(6), math.radians(20), math.pi))
    return Placed(shape, x, y, radius, rng.uniform(-turn, turn))


def _scatter(count: int, rng: random.Random) -> list[Placed]:
    """Place shapes, often equal ones, at random."""
    same = rng.choice(SHAPES) if rng.random() < 0.4 else None
    placed: list[Placed] = []
    while len(placed) < count:
        radius = rng.uniform(LEAST_RADIUS, 0.2)
        x, y = (rng.uniform(radius, 1 - radius) for _ in range(2))
        if all(math.hypot(x - o.x, y - o.y) > 1.1 * (radius + o.radius) for o in placed):
            angle = rng.uniform(-0.3, 0.3)
            placed.append(Placed(same or rng.choice(SHAPES), x, y, radius, angle))
        elif rng.random() < 0.02:  # no room: begin again
            placed = []
    return placed


def _painted(placed: Sequence[Placed], names: Sequence[str], rng: random.Random) -> Image.Image:
    """Paint shapes in colours of these names on a backdrop that they stand out from."""
    colours = [off_colour(name, rng) for name in names]
    image = draw_backdrop(colours, rng)
    softness = rng.uniform(0.4, 1.3) if rng.random() < SOFT_SHARE else 0.0
    for shape, colour in zip(placed, colours, strict=True):
        mask = draw_mask(shape, SIDE, SUPERSAMPLING)
        if softness:
            mask = mask.filter(ImageFilter.GaussianBlur(softness))
        image.paste(colour, mask=mask)
    return image


def off_colour(name: str, rng: random.Random) -> Rgb:
    """Draw a colour that everybody would still give this name."""
    if rng.random() >= OFF_COLOUR_SHARE:
        return COLOURS[name]
    reach = MAX_OFFSET // 2 if name in PALE_OR_DULL else MAX_OFFSET
    while True:
        red, green, blue = (_level(v + rng.uniform(-reach, reach)) for v in COLOURS[name])
        colour = (red, green, blue)
        limit = math.dist(colour, COLOURS[name]) + NAME_MARGIN
        if all(math.dist(colour, COLOURS[o]) >= limit for o in COLOURS if o != name):
            return colour


def draw_backdrop(colours: Sequence[Rgb], rng: random.Random) -> Image.Image:
    """Draw what is behind shapes of these colours; patterns only where there is no shape."""
    kind = rng.random()
    if (kind < 0.8 and colours) or kind < 0.4:
        plain = off_colour(rng.choice(tuple(COLOURS)), rng)
    elif kind < 0.55 or (colours and kind < 0.9):
        plain = _any_colour(rng)
    else:
        return _pattern(colours, rng)
    if all(math.dist(plain, colour) >= LEAST_CONTRAST for colour in colours):
        return Image.new("RGB", (SIDE, SIDE), plain)
    return draw_backdrop(colours, rng)


def _any_colour(rng: random.Random) -> Rgb:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _pattern(colours: Sequence[Rgb], rng: random.Random) -> Image.Image:
    """Mix two colours as a gradient or, where nothing is painted on it, as noise or stripes."""
    first, second = np.array(_any_colour(rng)), np.array(_any_colour(rng))
    if colours:  # gentle, and far from every shape's colour
        second = np.clip(first + [rng.uniform(-60, 60) for _ in range(3)], 0, 255)
    ends = (first, (first + second) / 2, second)
    if any(math.dist(end, colour) < LEAST_CONTRAST for end in ends for colour in colours):
        return draw_backdrop(colours, rng)
    kind = "gradient" if colours else rng.choice(("gradient", "noise", "noise", "stripes"))
    share = _noise(rng) if kind == "noise" else _waves(rng, kind == "stripes")
    mixed = first + (second - first) * share[:, :, None]
    return Image.fromarray(mixed.round().astype(np.uint8))


def _noise(rng: random.Random) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Smooth noise of any grain, [H, W] in [0, 1]."""
    side = rng.choice((3, 6, 12, 24, 48, SIDE))
    coarse = Image.frombytes("L", (side, side), rng.randbytes(side * side))
    fine = coarse.resize((SIDE, SIDE), rng.choice(FILTERS[2:4]))
    return np.asarray(fine, dtype=np.float64) / 255


def _waves(
    rng: random.Random, is_striped: bool
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A ramp or stripes at any angle, [H, W] in [0, 1]."""
    angle = rng.uniform(0, 2 * math.pi)
    across = np.linspace(-0.5, 0.5, SIDE)
    ramp = across[None, :] * math.cos(angle) + across[:, None] * math.sin(angle)
    if not is_striped:
        return np.clip(ramp + 0.5, 0.0, 1.0)
    sharpness = rng.choice((1.0, 6.0))
    waves = np.sin(2 * math.pi * rng.uniform(2, 10) * ramp + rng.uniform(0, 6)) * sharpness
    return np.clip(0.5 + 0.5 * waves, 0.0, 1.0)


def _shown(drawn: DrawnImage, rng: random.Random) -> Image.Image:
    """Put some images into a screenshot, make some small and large again, send some as JPEG."""
    image, radius = drawn.image, drawn.radius
    if drawn.label != NO_SHAPE and rng.random() < SCREENSHOT_SHARE:
        scale = max(rng.uniform(0.4, 0.85), min(LEAST_RADIUS / radius, 0.95))
        image, radius = _screenshot(image, scale, rng), radius * scale
    if rng.random() < RESAMPLED_SHARE:
        image = _resampled(image, radius, rng)
    return _coded(image, rng) if rng.random() < JPEG_SHARE else image


def _screenshot(image: Image.Image, scale: float, rng: random.Random) -> Image.Image:
    """Show the image as a panel of a page, maybe with a bar at the top."""
    level = rng.choice((rng.randint(235, 255), rng.randint(170, 230), rng.randint(15, 70)))
    page = Image.new("RGB", (SIDE, SIDE), (level,) * 3)
    if rng.random() < 0.5:
        bar = (_level(level + rng.choice((-60, -30, 30))),) * 3
        ImageDraw.Draw(page).rectangle((0, 0, SIDE, rng.randint(3, 9)), bar)
    side = round(scale * SIDE)
    panel = image.resize((side, side), Image.Resampling.BILINEAR)
    page.paste(panel, (rng.randint(0, SIDE - side), rng.randint(0, SIDE - side)))
    return page


def _resampled(image: Image.Image, radius: float, rng: random.Random) -> Image.Image:
    least = math.ceil(max(SMALLEST_SIDE, LEAST_RADIUS_PIXELS / radius))
    side = rng.randint(min(least, SIDE), SIDE)
    down = rng.choice(FILTERS[1:] if side < SIDE // 2 else FILTERS)
    return image.resize((side, side), down).resize((SIDE, SIDE), rng.choice(FILTERS))


def _coded(image: Image.Image, rng: random.Random) -> Image.Image:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=rng.randint(30, 95))
    return Image.open(encoded).convert("RGB")


def _level(value: float) -> int:
    return min(max(round(value), 0), 255)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Bend, move, blur, tint, blotch and noise most of the images [B, 3, H, W] in [-1, 1]."""

    def even(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def rough(channels: int, cells: int, most: float) -> Tensor:
        """Smooth noise of a random strength."""
        noise = torch.randn((size, channels, cells, cells), generator=generator)
        noise = noise * even(0.0, most, size, 1, 1, 1)
        return F.interpolate(noise, images.shape[-2:], mode="bilinear", align_corners=False)

    size = len(images)
    bends = rough(2, 5, 0.024) + rough(2, 14, 0.008)
    grid = _motions(images, even) + bends.permute(0, 2, 3, 1)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    softened = torch.lerp(moved, blurred, even(0.0, 1.0, size, 1, 1, 1))
    noise = torch.randn(images.shape, generator=generator) * even(0.0, 0.07, size, 1, 1, 1)
    augmented = (_recoloured(softened, even) + rough(3, 8, 0.06) + noise).clamp(-1.0, 1.0)
    return torch.where(even(0.0, 1.0, size, 1, 1, 1) < AUGMENTED_SHARE, augmented, images)


def _motions(images: Tensor, even: Callable[..., Tensor]) -> Tensor:
    """Turn, stretch, shift and tilt a little: where to take each pixel from, [B, H, W, 2]."""
    size = len(images)
    angle = even(-0.14, 0.14, size)  # 8 degrees, beyond those of the world
    stretch = even(0.88, 1.12, size, 2)
    rows = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), dim=1)
    turned = rows.view(size, 2, 2) * stretch[:, None, :]
    matrices = torch.cat((turned, even(-0.06, 0.06, size, 2, 1)), dim=2)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    tilt = even(-0.1, 0.1, size, 1, 1, 2)
    return grid / (1.0 + (grid * tilt).sum(dim=-1, keepdim=True))


def _recoloured(images: Tensor, even: Callable[..., Tensor]) -> Tensor:
    """Change contrast, saturation, hue and tint a little."""
    size = len(images)
    hue = even(-0.08, 0.08, size, 1, 1)  # 4.6 degrees: orange and yellow are 20 apart
    saturation, contrast = even(0.82, 1.15, size, 1, 1), even(0.88, 1.1, size, 1, 1)
    grey = torch.full((3, 3), 1 / 3)
    around = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turned = hue.cos() * (torch.eye(3) - grey) + hue.sin() * around
    matrices = contrast * (grey + saturation * turned)  # [B, 3, 3]
    mixed = (matrices @ images.flatten(2)).view_as(images)
    return mixed + even(-0.06, 0.06, size, 3, 1, 1) + even(-0.06, 0.06, size, 1, 1, 1)
