"""Several threads, one captioner."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import sleep

import numpy as np
import pytest

from function.captioner import Captioner, load_captioner
from function.together import Together
from tests.tiny_bundle import SIZE, make_tiny_bundle

BROKEN = 255  # photos that begin with it cannot be captioned


class Slow(Captioner):
    """Its first call lasts until `go`; all calls are kept."""

    def __init__(self, captioner):
        super().__init__(captioner.bundle)
        self.calls, self.began, self.go = [], Event(), Event()

    def caption(self, pixels, beams=None):
        self.calls.append((len(pixels), beams))
        self.began.set()
        assert self.go.wait(10)
        if (pixels[:, 0, 0, 0] == BROKEN).any():
            raise FloatingPointError("broken")
        return super().caption(pixels, beams)


@pytest.fixture
def slow(tmp_path):
    return Slow(load_captioner(make_tiny_bundle(tmp_path)))


def photo(shade):
    return np.full((1, SIZE[1], SIZE[0], 3), shade, dtype=np.uint8)


def while_the_first_is_captioned(slow, shades):
    """Futures of the first photo and of all others, which come meanwhile."""
    together = Together(slow)
    with ThreadPoolExecutor(1 + len(shades)) as threads:
        first = threads.submit(together.caption, photo(0))
        assert slow.began.wait(10)
        others = [threads.submit(together.caption, photo(shade)) for shade in shades]
        while len(together._waiting) < len(shades):
            assert not any(future.done() for future in others)
            sleep(0.001)
        slow.go.set()
    return [first, *others]


def test_who_comes_while_it_is_at_work_is_served_with_all_who_wait(slow):
    shades = [40, 80, 120, 200]
    found = [future.result() for future in while_the_first_is_captioned(slow, shades)]
    assert slow.calls == [(1, None), (4, None)]
    alone = [Captioner(slow.bundle).caption(photo(shade)) for shade in (0, *shades)]
    assert [[caption.tokens for caption in captions] for (captions,) in found] == [
        [caption.tokens for caption in captions] for (captions,) in alone
    ]
    assert len({captions[0].tokens for (captions,) in found}) > 1  # a wrong order would show


def test_who_cannot_be_captioned_fails_alone(slow):
    _, *others = while_the_first_is_captioned(slow, [40, BROKEN, 80])
    assert [type(future.exception()) for future in others] == [type(None), FloatingPointError, type(None)]


def test_who_asks_for_beams_is_served_apart(slow):
    slow.go.set()
    assert len(Together(slow).caption(photo(3), beams=2)[0]) <= 2
    assert slow.calls == [(1, 2)]
