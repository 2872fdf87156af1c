"""Pictures that are no photos, drawn at random: what a confidence must not believe, and a test that it does not."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 320  # pixels a side; the runtime makes them as large as a model wants them
Random = np.random.Generator
WORDS = [
    "total",
    "of",
    "all",
    "orders",
    "by",
    "month",
    "settings",
    "search",
    "results",
    "next",
    "help",
    "file",
    "value",
]


def _colour(random: Random) -> tuple[int, int, int]:
    return tuple(int(v) for v in random.integers(0, 256, 3))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _words(random: Random, count: int) -> str:
    return " ".join(random.choice(WORDS, count))


def blank(random: Random) -> Image.Image:
    """One colour."""
    return Image.new("RGB", (SIZE, SIZE), _colour(random))


def gradient(random: Random) -> Image.Image:
    """From one colour to another, at any angle."""
    start, end = np.array(_colour(random)), np.array(_colour(random))
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    along = (np.cos(angle) * x + np.sin(angle) * y) / 1.5 + 0.5
    return Image.fromarray((start + along[..., None] * (end - start)).clip(0, 255).astype("uint8"))


def noise(random: Random) -> Image.Image:
    """Grains of 1 to 32 pixels, coloured or grey, smoothed or not."""
    grains = SIZE // int(2 ** random.integers(0, 6))
    pixels = random.integers(0, 256, (grains, grains, 3 if random.random() < 0.5 else 1), np.uint8)
    image = Image.fromarray(np.broadcast_to(pixels, (grains, grains, 3)).copy())
    return image.resize((SIZE, SIZE), Image.Resampling.BILINEAR if random.random() < 0.5 else Image.Resampling.NEAREST)


def pattern(random: Random) -> Image.Image:
    """Stripes or squares of two colours."""
    period = int(random.integers(6, 80))
    y, x = np.mgrid[0:SIZE, 0:SIZE] // period
    which = (x + y if random.random() < 0.5 else x) % 2
    return Image.fromarray(np.array([_colour(random), _colour(random)], np.uint8)[which])


def chart(random: Random) -> Image.Image:
    """Bars or lines on axes, or a pie, with a title."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    draw.text((90, 10), _words(random, 3), "black", _font(16))
    kind, count = random.integers(3), int(random.integers(4, 12))
    if kind == 2:
        ends = np.cumsum(random.dirichlet(np.ones(count))) * 360
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            draw.pieslice((60, 60, 260, 260), float(begin), float(end), _colour(random))
        return image
    draw.line((40, 40, 40, 280, 300, 280), "black", 2)
    for level in range(5):
        draw.text((10, 272 - 50 * level), str(20 * level), "black", _font(12))
    heights = random.uniform(10, 220, count)
    step = 250 / count
    if kind:
        colour = _colour(random)
        for i, height in enumerate(heights):
            draw.rectangle((45 + i * step, 280 - height, 40 + (i + 0.8) * step, 279), colour)
    else:
        for _ in range(int(random.integers(1, 4))):
            line = [(45 + i * step, 280 - h) for i, h in enumerate(random.permutation(heights))]
            draw.line(line, _colour(random), 3)
    return image


def page(random: Random) -> Image.Image:
    """A page of text."""
    image = Image.new("RGB", (SIZE, SIZE), "white" if random.random() < 0.7 else "black")
    draw, size = ImageDraw.Draw(image), int(random.integers(9, 24))
    ink = "black" if image.getpixel((0, 0)) == (255, 255, 255) else "white"
    for y in range(16, SIZE - size, int(size * 1.5)):
        draw.text((16, y), _words(random, 280 // (3 * size) + 1), ink, _font(size))
    return image


def screenshot(random: Random) -> Image.Image:
    """A window: a bar on top, a list at the side, boxes, buttons and text."""
    dark = random.random() < 0.5
    paper, ink = ((30, 32, 36), (220, 220, 220)) if dark else ((250, 250, 250), (40, 40, 40))
    image = Image.new("RGB", (SIZE, SIZE), paper)
    draw, accent = ImageDraw.Draw(image), _colour(random)
    draw.rectangle((0, 0, SIZE, 26), accent)
    draw.text((8, 6), _words(random, 3), "white", _font(13))
    for y in range(40, 300, 22):
        draw.text((8, y), _words(random, 1), ink, _font(12))
    for _ in range(int(random.integers(2, 6))):
        x, y = random.integers(90, 220), random.integers(36, 260)
        draw.rectangle((x, y, x + random.integers(40, 100), y + random.integers(18, 50)), outline=ink, fill=None)
        draw.text((x + 4, y + 4), _words(random, 2), ink, _font(11))
    draw.rounded_rectangle((230, 280, 310, 306), 6, accent)
    return image


def blurred(random: Random) -> Image.Image:
    """A few spots of colour, out of focus: a covered lens."""
    image = blank(random)
    draw = ImageDraw.Draw(image)
    for _ in range(int(random.integers(1, 6))):
        x, y, r = random.integers(0, SIZE), random.integers(0, SIZE), random.integers(20, 120)
        draw.ellipse((x - r, y - r, x + r, y + r), _colour(random))
    return image.filter(ImageFilter.GaussianBlur(30))


KINDS: list[Callable[[Random], Image.Image]] = [blank, gradient, noise, pattern, chart, page, screenshot, blurred]
