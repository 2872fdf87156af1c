"""Where the model looked for each word of a caption: a sheet of panels.

As in the figures of Show, Attend and Tell (Xu et al. 2015, arXiv:1502.03044): the photo, then a panel a word, the
photo under a veil that is white where the word's attention lies and black where it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PANEL = 256  # the longer side of a panel, in pixels
ACROSS = 5  # panels in a row
GAP, TITLE = 12, 30  # between panels, and above each for its word, in pixels
VEIL = 0.65  # of a pixel is the veil, the rest the photo


def panel_size(width: int, height: int) -> tuple[int, int]:
    """The (width, height) of a panel for a photo of this shape, all in pixels."""
    scale = PANEL / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def draw(photo: NDArray[np.uint8], words: Sequence[str], attention: NDArray[np.float32]) -> Image.Image:
    """The sheet for a photo, uint8 (H, W, 3), and the words' attention over it, (words, rows, columns).

    Each panel is as large as `photo`. A word's largest weight is white, so that panels tell where a word's
    attention lies and not how much of it. Raises ValueError where words and attention differ in number.
    """
    height, width, _ = photo.shape
    panels = [photo] + [_veiled(photo, weights) for _, weights in zip(words, attention, strict=True)]
    across = min(ACROSS, len(panels))
    cell = (width + GAP, height + TITLE + GAP)
    sheet = Image.new("RGB", (GAP + across * cell[0], math.ceil(len(panels) / across) * cell[1]), "white")
    ink, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for number, (panel, word) in enumerate(zip(panels, ["", *words], strict=True)):
        row, column = divmod(number, across)
        left, top = GAP + column * cell[0], row * cell[1] + TITLE
        sheet.paste(Image.fromarray(panel), (left, top))
        ink.text((left + width / 2, top - 9), word, "black", font, anchor="ms")
    return sheet


def _veiled(photo: NDArray[np.uint8], weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The photo (H, W, 3) under its attention (rows, columns), which is stretched over it smoothly."""
    height, width, _ = photo.shape
    stretched = Image.fromarray(weights / weights.max()).resize((width, height), Image.Resampling.BICUBIC)
    veil = 255 * np.asarray(stretched).clip(0, 1)  # bicubic overshoots
    return ((1 - VEIL) * photo + VEIL * veil[..., None]).round().astype(np.uint8)
