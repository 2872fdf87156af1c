"""From the bytes of an upload to the pixels an encoder takes.

Anybody may upload anything, so: only the formats below are tried, the size in the header is checked before a
pixel is decoded, and whatever a decoder raises becomes an `UnreadablePhoto` of one clear line. The resize is
`square`, which training uses too.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
MEDIA_TYPES = {name: f"image/{name.lower()}" for name in (*FORMATS, "HEIC")}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
PUBLIC_NAMES = {"MPO": "JPEG", "HEIF": "HEIC"}  # MPO: a JPEG with more pictures behind it, as phones write

PIXEL_LIMIT = 110_000_000  # a phone's 108 megapixels fit
Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT  # Pillow warns above it, refuses above twice; `_open` refuses above it

# The EXIF orientation (TIFF 6.0, tag 274) -> what brings the photo upright; 1 is upright already.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadablePhoto(ValueError):
    """These bytes are no photo that can be read; `str` of it is one line that says why."""


@dataclass(frozen=True)
class Photo:
    """A photo made ready for an encoder, and what it was before."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB, upright, of the size that was asked for
    width: int  # of the upright original, in pixels
    height: int
    format: str  # "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF" or "HEIC"


def read_photo(data: bytes, size: tuple[int, int], draft: bool = True) -> Photo:
    """Decode `data` and fit it to `size` = (width, height), the model's input.

    With `draft`, a JPEG far larger than that is decoded at 1/2, 1/4 or 1/8 of its size, never below twice
    `size`: much faster, and the pixels differ a little. An animation's first frame is the photo. Raises
    UnreadablePhoto.
    """
    image = _open(data)
    name = _name(image)
    width, height = image.size
    try:
        if draft:
            image.draft(None, _stored(_orientation(image), 2 * size[0], 2 * size[1]))
        image.load()
        orientation = _orientation(image)  # asked again: Pillow turns a TIFF itself as it loads
        pixels = square(_rgb(_upright(image, orientation)), size)
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, MemoryError and more
        raise UnreadablePhoto(f"the {name} is damaged: {_one_line(error)}") from error
    width, height = _stored(orientation, width, height)
    return Photo(pixels, width, height, name)


def read_media_type(data: bytes) -> str:
    """What kind of photo this is, such as "image/jpeg", by its header alone. Raises UnreadablePhoto."""
    image = _open(data)
    return MEDIA_TYPES[_name(image)]


def square(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch an upright RGB image to `size` = (width, height): bicubic with antialiasing -> (H, W, 3).

    The one resize of training and serving.
    """
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header and no more; refuse what is no photo or has too many pixels."""
    if not data:
        raise UnreadablePhoto("the file is empty")
    try:
        image = _open_heic(data) if _is_heic(data) else Image.open(BytesIO(data), formats=FORMATS)
        if image.width * image.height > PIXEL_LIMIT:
            raise Image.DecompressionBombError
    except UnidentifiedImageError as error:
        raise UnreadablePhoto(f"not a {READABLE} photo, or its header is damaged") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadablePhoto(f"it has more than {PIXEL_LIMIT // 1_000_000} megapixels") from error
    except Exception as error:  # as in read_photo
        raise UnreadablePhoto(f"the header is damaged: {_one_line(error)}") from error
    return image


def _name(image: ImageFile.ImageFile) -> str:
    return PUBLIC_NAMES.get(image.format or "", image.format or "")


def _is_heic(data: bytes) -> bool:
    """Whether the file type box (ISO/IEC 14496-12, 4.3) names a brand of HEVC images (ISO/IEC 23008-12)."""
    if data[4:8] != b"ftyp":
        return False
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]  # major brand, version, compatible brands
    return not HEIC_BRANDS.isdisjoint(box[i : i + 4] for i in range(0, len(box), 4))


def _open_heic(data: bytes) -> ImageFile.ImageFile:
    from pi_heif import HeifImageFile  # here, since few photos need it and a cold start pays for every import

    image: ImageFile.ImageFile = HeifImageFile(BytesIO(data))
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF does not make the picture unreadable
        return 1


def _stored(orientation: int, width: int, height: int) -> tuple[int, int]:
    """Swap width and height if the orientation turns the photo on its side (its own inverse)."""
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB, what is transparent on white. Copies are spared: at the limit each takes 440 MB."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits, 32 bits or floats, scaled to 8 bits (Pillow's own conversion clips at 255).

    White is the first of 1 (floats), 255 (floats) and 65535 that no pixel exceeds, else the brightest pixel.
    Below 0 is black.
    """
    if image.mode not in ("I", "I;16", "F"):  # the other byte orders of "I;16"
        image = image.convert("I")
    brightest = cast(float, image.getextrema()[1])
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    white = next((white for white in whites if brightest <= white), brightest)
    return image.point(lambda value: value * (255 / white) + 0.5).convert("L")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
