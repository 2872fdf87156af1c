"""Bytes in, upright RGB pixels out; whatever cannot be read is refused in one clear line."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, features

from function import photos
from function.photos import UnreadablePhoto, read_photo, square

SIZE = (40, 30)  # (width, height)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def scene(width: int = 160, height: int = 120) -> Image.Image:
    """Red on the left, blue on the right, a green stripe on top."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    image.paste((0, 255, 0), (0, 0, width, height // 4))
    return image


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def refusal(data: bytes) -> str:
    """The one line that refuses these bytes."""
    with pytest.raises(UnreadablePhoto) as refused:
        read_photo(data, SIZE)
    reason = str(refused.value)
    assert reason
    assert "\n" not in reason
    return reason


def assert_looks_like_the_scene(pixels: np.ndarray) -> None:
    expected = square(scene(), SIZE).astype(int)
    difference = np.abs(pixels.astype(int) - expected)
    assert np.median(difference) <= 6
    assert difference.mean() < 12


# -- formats


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_reads_every_format_it_promises(format: str) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    photo = read_photo(encoded(scene(), format), SIZE)
    assert (photo.width, photo.height, photo.format) == (160, 120, format)
    assert photo.pixels.shape == (30, 40, 3)
    assert photo.pixels.dtype == np.uint8
    assert_looks_like_the_scene(photo.pixels)


def heic(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


def test_reads_the_heic_of_phones() -> None:
    photo = read_photo(heic(scene(), quality=95), SIZE)
    assert (photo.width, photo.height, photo.format) == (160, 120, "HEIC")
    assert_looks_like_the_scene(photo.pixels)


def test_a_jpeg_with_further_pictures_behind_it_is_a_jpeg() -> None:
    data = encoded(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (160, 120))])
    photo = read_photo(data, SIZE)
    assert photo.format == "JPEG"
    assert_looks_like_the_scene(photo.pixels)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_its_first_frame(format: str) -> None:
    data = encoded(scene(), format, save_all=True, append_images=[Image.new("RGB", (160, 120), "white")])
    assert_looks_like_the_scene(read_photo(data, SIZE).pixels)


def test_formats_outside_the_list_are_not_even_tried() -> None:
    assert "not a JPEG, PNG" in refusal(encoded(scene(), "PPM"))
    assert "not a JPEG, PNG" in refusal(encoded(scene(), "ICO"))
    assert "not a JPEG, PNG" in refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


# -- the same way up as a person sees it


def turned_by_exif(orientation: int) -> tuple[Image.Image, Image.Exif]:
    """The scene as a camera stores it that notes how it was held."""
    backwards = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = {**photos.UPRIGHT, **backwards}
    image = scene() if orientation == 1 else scene().transpose(stored[orientation])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return image, exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_obeyed(format: str, orientation: int) -> None:
    image, exif = turned_by_exif(orientation)
    photo = read_photo(encoded(image, format, exif=exif.tobytes()), SIZE)
    assert (photo.width, photo.height) == (160, 120)
    assert_looks_like_the_scene(photo.pixels)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_heic_is_turned_once(orientation: int) -> None:
    image, exif = turned_by_exif(orientation)
    photo = read_photo(heic(image, exif=exif.tobytes(), quality=95), SIZE)
    assert (photo.width, photo.height) == (160, 120)
    assert_looks_like_the_scene(photo.pixels)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_broken_exif_does_not_make_a_photo_unreadable(exif: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow says that it is corrupt
        assert_looks_like_the_scene(read_photo(encoded(scene(), "JPEG", exif=exif), SIZE).pixels)


# -- every mode becomes RGB


def colour(image: Image.Image, format: str, **options: object) -> list[int]:
    """What becomes of a picture of one colour."""
    pixels = read_photo(encoded(image, format, **options), SIZE).pixels
    assert np.ptp(pixels.reshape(-1, 3).astype(int), axis=0).max() <= 2
    return [int(value) for value in pixels[0, 0]]


def test_palette() -> None:
    image = scene().quantize(16)
    assert_looks_like_the_scene(read_photo(encoded(image, "PNG"), SIZE).pixels)


def test_black_and_white() -> None:
    assert colour(Image.new("1", (9, 9), 1), "PNG") == [255, 255, 255]


def test_cmyk_as_tiff() -> None:
    assert colour(Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "TIFF") == [255, 0, 0]


def test_cmyk_jpeg_as_adobe_writes_it_inverted() -> None:
    data = encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95)
    assert b"Adobe" in data
    assert_close(read_photo(data, SIZE).pixels[0, 0], [255, 0, 0], 3)


def assert_close(actual: np.ndarray, expected: list[int], within: int) -> None:
    assert np.abs(actual.astype(int) - expected).max() <= within


@pytest.mark.parametrize(("value", "shown"), [(0, 0), (40000, 156), (65535, 255)])
@pytest.mark.parametrize(("mode", "format"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF")])
def test_sixteen_bits_are_scaled_and_not_clipped(mode: str, format: str, value: int, shown: int) -> None:
    assert colour(Image.new(mode, (9, 9), value), format) == [shown] * 3


def test_floats_from_0_to_1_are_scaled() -> None:
    assert colour(Image.new("F", (9, 9), 0.5), "TIFF") == [128] * 3


def test_floats_of_any_range_are_scaled_to_the_brightest() -> None:
    image = Image.fromarray(np.repeat(np.float32([[-5.0], [1e6]]), 9, axis=1))
    pixels = read_photo(encoded(image, "TIFF"), (9, 2)).pixels
    assert pixels[:, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("mode", "value", "shown"),
    [
        ("RGBA", (255, 0, 0, 0), [255, 255, 255]),
        ("RGBA", (255, 0, 0, 128), [255, 127, 127]),
        ("RGBA", (255, 0, 0, 255), [255, 0, 0]),
        ("LA", (0, 0), [255, 255, 255]),
        ("LA", (0, 128), [127, 127, 127]),
    ],
)
def test_transparency_is_laid_on_white(mode: str, value: tuple[int, ...], shown: list[int]) -> None:
    assert colour(Image.new(mode, (9, 9), value), "PNG") == shown


def test_a_transparent_colour_of_a_palette_is_laid_on_white() -> None:
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert colour(image, "PNG") == [255, 0, 0]
    assert colour(image, "PNG", transparency=1) == [255, 255, 255]
    assert colour(image, "GIF", transparency=1) == [255, 255, 255]


# -- big JPEGs


def test_a_big_jpeg_is_decoded_small_and_looks_the_same() -> None:
    data = encoded(noise(800, 600).resize((1600, 1200)), "JPEG")
    whole, drafted = read_photo(data, SIZE, draft=False), read_photo(data, SIZE)
    assert (drafted.width, drafted.height) == (whole.width, whole.height) == (1600, 1200)
    difference = np.abs(whole.pixels.astype(int) - drafted.pixels)
    assert 0 < difference.mean() < 4


def test_draft_never_goes_below_twice_the_target() -> None:
    data = encoded(noise(120, 90), "JPEG")  # three times SIZE: half of it would be less than twice
    assert np.array_equal(read_photo(data, SIZE).pixels, read_photo(data, SIZE, draft=False).pixels)


def test_draft_looks_at_the_size_before_the_photo_is_turned() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # stored 200 x 320, seen 320 x 200
    data = encoded(noise(200, 320), "JPEG", exif=exif.tobytes())
    size = (80, 50)  # a half is just twice that, though only if width and height are not mixed up
    turned = Image.open(BytesIO(data))
    turned.draft(None, (100, 160))
    assert turned.size == (100, 160)
    expected = square(turned.transpose(Image.Transpose.ROTATE_270), size)
    assert np.array_equal(read_photo(data, size).pixels, expected)


# -- what is refused


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))


def test_refuses_an_empty_file() -> None:
    assert refusal(b"") == "the file is empty"


def test_refuses_what_is_no_image() -> None:
    assert refusal(b"The quick brown fox jumps over the lazy dog.").startswith("not a JPEG, PNG, WebP")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (11_000, 10_001)])
def test_refuses_a_decompression_bomb_by_its_header(width: int, height: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert refusal(png_header(width, height)) == "it has more than 110 megapixels"


def test_the_limit_is_looked_at_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "PIXEL_LIMIT", 160 * 120 - 1)
    for data in (encoded(noise(160, 120), "JPEG"), encoded(noise(160, 120), "BMP"), heic(noise(160, 120))):
        assert "megapixels" in refusal(data[: len(data) // 2])  # decoding it would find it damaged


def test_a_phone_s_108_megapixels_are_not_too_many() -> None:
    assert "damaged" in refusal(png_header(12_000, 9_000))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_refuses_a_file_cut_short(format: str) -> None:
    data = encoded(noise(160, 120), format)
    assert "damaged" in refusal(data[: len(data) // 2])


def test_says_that_a_jpeg_is_truncated() -> None:
    data = encoded(noise(160, 120), "JPEG")
    assert refusal(data[: len(data) // 2]).startswith("the JPEG is damaged: image file is truncated")


def test_refuses_a_truncated_progressive_jpeg_with_draft() -> None:
    data = encoded(noise(1600, 1200), "JPEG", progressive=True)
    assert "truncated" in refusal(data[: len(data) // 2])


def test_refuses_a_heic_cut_short() -> None:
    data = heic(noise(160, 120))
    assert "damaged" in refusal(data[: len(data) // 2])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC"])
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_damage_anywhere_is_refused_or_survived(format: str, data: st.DataObject) -> None:
    whole = heic(scene(48, 36)) if format == "HEIC" else encoded(scene(48, 36), format)
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert shape_or_reason(bytes(damaged)) in [(30, 40, 3), "one line"]


def shape_or_reason(data: bytes) -> tuple[int, ...] | str:
    try:
        return read_photo(data, SIZE).pixels.shape
    except UnreadablePhoto as refused:
        return "one line" if len(str(refused).splitlines()) == 1 else str(refused)


# -- the resize that training shares


def test_square_stretches_with_antialiasing() -> None:
    checks = Image.fromarray(np.indices((240, 320)).sum(axis=0).astype(np.uint8) % 2 * 255).convert("RGB")
    pixels = square(checks, SIZE)
    assert pixels.shape == (30, 40, 3)
    assert_close(pixels, [127, 127, 127], 2)  # without antialiasing it would be black and white


def test_heic_s_decoder_is_loaded_only_for_a_heic() -> None:
    program = (
        "import sys; from function.photos import read_photo; read_photo(sys.stdin.buffer.read(), (9, 9));"
        "print('pi_heif' in sys.modules)"
    )
    for data, loaded in ((encoded(scene(), "JPEG"), "False"), (heic(scene()), "True")):
        done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
        assert done.stdout.decode().strip() == loaded
