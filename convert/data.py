"""Photos with captions in Flickr8k's format: read, tokenised, decoded once and kept on disk.

    folder/images/*.jpg                 the photos
    folder/Flickr8k.token.txt           name.jpg#0<TAB>caption, five a photo
    folder/Flickr_8k.trainImages.txt    a name a line; devImages and, where one has it, testImages alike

Tokens are the Penn Treebank's, lower-case, without punctuation: what coco-caption's Java tokeniser makes of the same
captions in 34,985 of Flickr8k's 35,000 (measured with pycocoevalcap 1.2).
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nltk.tokenize import TreebankWordTokenizer
from PIL import Image, ImageEnhance
from tqdm import tqdm

from function.photos import UnreadablePhoto, read_photo, square

PAD, START, UNKNOWN, END = range(4)  # the first three are never written
SPECIAL = ["<pad>", "<start>", "<unknown>", "<end>"]
# What coco-caption drops, and brackets, which its tokeniser writes as -lrb- and a caption should never contain.
_PUNCTUATION = frozenset(["''", "'", "``", "`", "-", "--", "...", *'".?!,:;()[]{}'])
_treebank = TreebankWordTokenizer()


class DataError(Exception):
    """A data set that cannot be used; the message says which file and why."""


@dataclass(frozen=True)
class Captions:
    """The captions of one split: `tokens[i]` are the tokenised captions of photo `names[i]`, `raw[i]` the originals."""

    names: list[str]
    tokens: list[list[list[str]]]
    raw: list[list[str]]


def tokenize(caption: str) -> list[str]:
    """PTB tokens of a caption, lower-case, punctuation dropped."""
    return [token for token in _treebank.tokenize(caption.lower()) if token not in _PUNCTUATION]


def read_captions(folder: Path, split: str) -> Captions:
    """The captions of a split (`train`, `dev` or `test`), photos in the split's order.

    Broken lines, captions of no photo and photos without file or caption are left out and counted on standard error.

    Raises:
        DataError: a file is missing, or no usable photo is left.
    """
    token_file, split_file = folder / "Flickr8k.token.txt", folder / f"Flickr_8k.{split}Images.txt"
    for path in (token_file, split_file):
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    by_name: dict[str, list[str]] = {}
    for number, line in enumerate(token_file.read_text("utf-8", errors="replace").splitlines(), 1):
        name, separator, caption = line.partition("\t")
        name, hash_sign, _ = name.partition("#")
        caption = " ".join(caption.split())  # some copies have a second tab
        if not (separator and hash_sign and tokenize(caption)):
            if line.strip():
                _say(f"{token_file}:{number}: left out, not 'name.jpg#N<TAB>caption': {line[:60]!r}")
            continue
        by_name.setdefault(name, []).append(caption)
    names = []
    for name in split_file.read_text("utf-8").split():
        if name not in by_name:
            _say(f"{split_file}: {name} left out, it has no caption")
        elif not (folder / "images" / name).is_file():
            _say(f"{split_file}: {name} left out, no such photo in {folder / 'images'}")
        else:
            names.append(name)
    if not names:
        raise DataError(f"{split_file}: none of its photos has both a file and a caption")
    raw = [by_name[name] for name in names]
    return Captions(names, [[tokenize(c) for c in captions] for captions in raw], raw)


def build_vocabulary(captions: Captions, minimum: int) -> list[str]:
    """Special tokens, then the words seen `minimum` times or more, most frequent first."""
    counts = Counter(word for photo in captions.tokens for caption in photo for word in caption)
    words = sorted((w for w, n in counts.items() if n >= minimum), key=lambda w: (-counts[w], w))
    return SPECIAL + words


def encode(captions: list[list[list[str]]], vocabulary: list[str], longest: int, per_photo: int = 5) -> np.ndarray:
    """Captions as int32 (photos, per_photo, longest + 1): words, END, PAD; longer ones are cut.

    A photo with fewer captions repeats its own; surplus ones are left out.
    """
    index = {word: i for i, word in enumerate(vocabulary)}
    out = np.full((len(captions), per_photo, longest + 1), PAD, np.int32)
    for photo, of_photo in enumerate(captions):
        for slot in range(per_photo):
            words = [*(index.get(w, UNKNOWN) for w in of_photo[slot % len(of_photo)][:longest]), END]
            out[photo, slot, : len(words)] = words
    return out


# --- Arrays on disk -------------------------------------------------------------------------------------------------


def cached(path: Path, shape: tuple[int, ...], dtype: str, fill: Callable[[np.ndarray], None], key: dict) -> np.ndarray:
    """A memory-mapped array, filled once. `key` is what it was made from; another key makes it anew.

    The note beside the array is written last, so that an array whose filling was cut off is filled again.
    """
    note = path.with_suffix(".json")
    key = {**key, "shape": list(shape), "dtype": dtype}
    if not (note.is_file() and path.is_file() and json.loads(note.read_text()) == key):
        path.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        fill(array)
        array.flush()
        del array
        note.write_text(json.dumps(key))
    return np.load(path, mmap_mode="r")


def decoded(folder: Path, names: list[str], size: tuple[int, int], cache: Path) -> np.ndarray:
    """Photos as the runtime sees them: uint8 (photos, height, width, 3), decoded once into `cache`.

    Raises:
        DataError: a photo of the split cannot be read.
    """

    def fill(array: np.ndarray) -> None:
        for i, name in enumerate(tqdm(names, "decode", unit="photo")):
            path = folder / "images" / name
            try:
                array[i] = read_photo(path.read_bytes(), size).pixels
            except UnreadablePhoto as error:
                raise DataError(f"{path}: {error}") from error

    key = {"names": names, "folder": folder.name}
    return cached(cache / f"pixels-{len(names)}.npy", (len(names), size[1], size[0], 3), "uint8", fill, key)


def sidedness(captions: Iterable[list[list[str]]]) -> np.ndarray:
    """True where a caption of the photo says left or right, so that a mirrored photo would make it a lie."""
    return np.array([any({"left", "right"} & set(c) for c in photo) for photo in captions])


def augment(pixels: np.ndarray, random: np.random.Generator, flip: bool) -> np.ndarray:
    """A random view of a photo, uint8 (H, W, 3) -> the same shape.

    60 to 100 % of its area at an aspect within 4:5 and 5:4 (an object cut off makes a caption wrong, so no smaller),
    mirrored half of the time if `flip`, brightness, contrast and colour within a fifth.
    """
    height, width = pixels.shape[:2]
    area, aspect = random.uniform(0.6, 1.0), np.exp(random.uniform(np.log(0.8), np.log(1.25)))
    w = min(width, width * np.sqrt(area * aspect))
    h = min(height, height * np.sqrt(area / aspect))
    x, y = random.uniform(0, width - w), random.uniform(0, height - h)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, (x, y, x + w, y + h))
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(random.uniform(0.8, 1.2))
    if flip and random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return square(image, (width, height))


def _say(line: str) -> None:
    print(line, file=sys.stderr)
