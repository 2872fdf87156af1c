"""`make picture`: the sample photos under the captions that the default bundle gives them, for the README."""

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from function.captioner import load_captioner
from function.photos import read_photo

ROOM = Path(__file__).parent
SAMPLES = ROOM.parent / "events" / "photos"
TILE, TEXT, GAP, COLUMNS = (300, 225), 64, 12, 4  # pixels, but for the columns


def main() -> None:
    """Write captions.jpg beside this file."""
    captioner = load_captioner()
    paths = sorted(SAMPLES.glob("*.jpg"))
    rows = -(-len(paths) // COLUMNS)
    size = (COLUMNS * (TILE[0] + GAP) + GAP, rows * (TILE[1] + TEXT + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, path in enumerate(paths):
        pixels = read_photo(path.read_bytes(), captioner.image_size).pixels
        caption = captioner.caption(pixels[None])[0][0].text
        x = GAP + number % COLUMNS * (TILE[0] + GAP)
        y = GAP + number // COLUMNS * (TILE[1] + TEXT + GAP)
        sheet.paste(ImageOps.fit(Image.open(path).convert("RGB"), TILE), (x, y))
        text = "\n".join(textwrap.wrap(caption, 38))
        draw.multiline_text((x, y + TILE[1] + 6), text, "black", ImageFont.load_default(16))
    sheet.save(ROOM / "captions.jpg", quality=85)


if __name__ == "__main__":
    main()
