"""This project's bundle, from the file to the sentence, with the bundle's own beams."""

from collections.abc import Callable
from pathlib import Path

from infra.bench.subject import measure


def load() -> Callable[[Path], str]:
    """The captioner as the function makes it."""
    from function.captioner import load_captioner
    from function.photos import read_photo

    captioner = load_captioner()

    def caption(path: Path) -> str:
        pixels = read_photo(path.read_bytes(), captioner.image_size).pixels
        return captioner.caption(pixels[None])[0][0].text

    return caption


if __name__ == "__main__":
    measure(load)
