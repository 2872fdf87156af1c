"""A sheet of panels: the photo, then where the model looked for each word."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from function.explain import ACROSS, GAP, PANEL, TITLE, draw, panel_size

GREY = np.full((48, 64, 3), 128, dtype=np.uint8)


def looking(*where: tuple[int, int]) -> np.ndarray:
    """Attention over a grid of 4 x 4, for each word all in one cell (row, column)."""
    attention = np.zeros((len(where), 4, 4), dtype=np.float32)
    for weights, cell in zip(attention, where, strict=True):
        weights[cell] = 1
    return attention


def panel(sheet: Image.Image, number: int) -> np.ndarray:
    row, column = divmod(number, ACROSS)
    left, top = GAP + column * (64 + GAP), TITLE + row * (48 + TITLE + GAP)
    return np.asarray(sheet.crop((left, top, left + 64, top + 48)))


def title(sheet: Image.Image, number: int) -> np.ndarray:
    left = GAP + number * (64 + GAP)
    return np.asarray(sheet.crop((left, 0, left + 64, TITLE)))


def test_the_photo_comes_first_as_it_is() -> None:
    assert np.array_equal(panel(draw(GREY, ["dog"], looking((0, 0))), 0), GREY)


def test_a_word_is_bright_where_the_model_looked_and_dark_elsewhere() -> None:
    sheet = draw(GREY, ["a", "dog"], looking((0, 3), (3, 0)))
    first, second = panel(sheet, 1), panel(sheet, 2)
    assert first[0, -1].min() > 128 > first[-1, 0].max()
    assert second[-1, 0].min() > 128 > second[0, -1].max()


def test_attention_is_spread_smoothly() -> None:
    row = panel(draw(GREY, ["dog"], looking((0, 0))), 1)[0, :, 0].astype(int)
    assert np.abs(np.diff(row)).max() < (row.max() - row.min()) / 8


def test_each_panel_but_the_photo_has_its_word_above() -> None:
    sheet = draw(GREY, ["a", "dog"], looking((0, 0), (0, 0)))
    assert (title(sheet, 0) == 255).all()
    assert title(sheet, 1).min() < 128
    assert (title(sheet, 1) != title(sheet, 2)).any()


@pytest.mark.parametrize(("words", "across", "down"), [(1, 2, 1), (4, 5, 1), (5, 5, 2), (18, 5, 4)])
def test_rows_are_five_panels_wide_and_as_many_as_it_takes(words: int, across: int, down: int) -> None:
    sheet = draw(GREY, ["dog"] * words, looking(*[(0, 0)] * words))
    assert sheet.size == (GAP + across * (64 + GAP), down * (48 + TITLE + GAP))


def test_words_and_attention_must_agree() -> None:
    with pytest.raises(ValueError, match="shorter"):
        draw(GREY, ["a", "dog"], looking((0, 0)))


@pytest.mark.parametrize(
    ("size", "panel"), [((500, 375), (PANEL, 192)), ((100, 400), (64, PANEL)), ((9000, 1), (PANEL, 1))]
)
def test_a_panel_keeps_the_photo_s_shape(size: tuple[int, int], panel: tuple[int, int]) -> None:
    assert panel_size(*size) == panel
