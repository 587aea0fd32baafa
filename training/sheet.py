"""Paint a sheet of images: `python -m training.sheet [--preset DIR] [--output FILE]`.

One image each of the prompts of `sheet_prompts.txt`, which were chosen before any was painted,
with the preset's defaults, and each prompt below its image.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from models.flux.text_to_image import TextToImage
from models.presets import get_preset
from training.measure_flux import PaintSettings, paint
from training.segmentation import Pixels

PROMPTS = Path(__file__).parent / "sheet_prompts.txt"
OUTPUT = Path(__file__).parents[1] / "docs" / "flux_shapes_sheet.png"
NUM_COLUMNS = 10
MARGIN, TEXT_HEIGHT, FONT_SIZE = 6, 30, 10  # pixels
MAX_CHARACTERS = 24  # of a line below an image
NUM_LINES = 2


def draw_sheet(prompts: Sequence[str], images: Sequence[Pixels], num_columns: int) -> Image.Image:
    height, width = images[0].shape[:2]
    cell_width, cell_height = width + MARGIN, height + TEXT_HEIGHT + MARGIN
    num_rows = -(-len(images) // num_columns)
    size = (num_columns * cell_width + MARGIN, num_rows * cell_height + MARGIN)
    sheet = Image.new("RGB", size, (225, 228, 232))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for i, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        x = MARGIN + i % num_columns * cell_width
        y = MARGIN + i // num_columns * cell_height
        sheet.paste(Image.fromarray(image), (x, y))
        draw.multiline_text((x, y + height + 2), broken(prompt), (40, 40, 40), font, spacing=1)
    return sheet


def broken(prompt: str) -> str:
    """Break a prompt into at most NUM_LINES lines, the last one cut."""
    lines = [""]
    for word in prompt.split():
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= MAX_CHARACTERS:
            lines[-1] = longer
        else:
            lines.append(word)
    cut = "…" if len(lines) > NUM_LINES else ""
    return "\n".join(lines[:NUM_LINES]) + cut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", type=Path, help="a candidate's directory; else the bundled one")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="one prompt a line")
    parser.add_argument("--columns", type=int, default=NUM_COLUMNS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    prompts = arguments.prompts.read_text(encoding="utf-8").splitlines()
    directory = arguments.preset or Path(get_preset("flux_shapes").handle)
    pipeline = TextToImage.from_preset(directory)
    images = paint(pipeline, prompts, PaintSettings.defaults(), "sheet")
    draw_sheet(prompts, images, arguments.columns).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
