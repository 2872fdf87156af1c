"""Captions and photos as they are read, tokenised and kept."""

import numpy as np
import pytest
from conftest import write_flickr

from convert import data
from convert.data import END, PAD, UNKNOWN, DataError


def test_tokens_are_the_treebanks_without_punctuation():
    assert data.tokenize("A dog doesn't like the man's hat , it runs ( fast ) !") == (
        ["a", "dog", "does", "n't", "like", "the", "man", "'s", "hat", "it", "runs", "fast"]
    )


def test_a_split_keeps_its_order_and_all_five_captions(flickr):
    captions = data.read_captions(flickr, "dev")
    assert captions.names == (flickr / "Flickr_8k.devImages.txt").read_text().split()
    assert all(len(photo) == 5 for photo in captions.raw)
    assert captions.tokens[0][0] == data.tokenize(captions.raw[0][0])


def test_broken_lines_are_left_out_and_named(tmp_path, capsys):
    folder = write_flickr(tmp_path / "data", train=2, dev=1)
    with open(folder / "Flickr8k.token.txt", "a") as file:
        file.write("no tab here\nghost.jpg.1\tA caption of no photo .\n0_astronaut.jpg#5\tA\tsecond tab .\n\n")
    with open(folder / "Flickr_8k.trainImages.txt", "a") as file:
        file.write("gone.jpg\n")
    captions = data.read_captions(folder, "train")
    said = capsys.readouterr().err
    assert len(captions.names) == 2
    assert captions.raw[0][5] == "A second tab ."
    assert "token.txt:16: left out" in said
    assert "token.txt:17: left out" in said
    assert "gone.jpg left out, it has no caption" in said


@pytest.mark.parametrize("missing", ["Flickr8k.token.txt", "Flickr_8k.devImages.txt"])
def test_a_missing_file_is_named(tmp_path, missing):
    folder = write_flickr(tmp_path / "data", train=1, dev=1)
    (folder / missing).unlink()
    with pytest.raises(DataError, match=missing):
        data.read_captions(folder, "dev")


def test_a_split_without_photos_is_refused(tmp_path):
    folder = write_flickr(tmp_path / "data", train=1, dev=1)
    for photo in (folder / "images").iterdir():
        photo.unlink()
    with pytest.raises(DataError, match="none of its photos"):
        data.read_captions(folder, "train")


def test_the_vocabulary_is_ordered_by_frequency_then_alphabet(flickr):
    captions = data.read_captions(flickr, "train")
    words = data.build_vocabulary(captions, minimum=2)
    assert words[:8] == ["<pad>", "<start>", "<unknown>", "<end>", "a", "of", "photo", "bright"]
    assert " ".join(data.build_vocabulary(captions, minimum=16)[4:]) == "a of photo bright dark large plain small"


def test_encoded_captions_end_are_padded_and_cut():
    vocabulary = [*data.SPECIAL, "a", "dog"]
    rows = data.encode([[["a", "dog"], ["a", "cat", "dog", "a"]]], vocabulary, longest=3, per_photo=3)
    assert rows.tolist() == [[[4, 5, END, PAD], [4, UNKNOWN, 5, END], [4, 5, END, PAD]]]


def test_a_cached_array_is_filled_once_and_again_for_another_key(tmp_path):
    calls = []

    def fill(array):
        calls.append(1)
        array[:] = len(calls)

    for key, expected in (({"a": 1}, 1), ({"a": 1}, 1), ({"a": 2}, 2)):
        assert data.cached(tmp_path / "x.npy", (3,), "float16", fill, key).tolist() == [expected] * 3


def test_an_array_whose_filling_was_cut_off_is_filled_again(tmp_path):
    def interrupted(array):
        array[:] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.cached(tmp_path / "x.npy", (2,), "uint8", interrupted, {})
    assert data.cached(tmp_path / "x.npy", (2,), "uint8", lambda a: a.fill(7), {}).tolist() == [7, 7]


def test_an_unreadable_photo_stops_the_decoding_by_name(tmp_path):
    folder = write_flickr(tmp_path / "data", train=1, dev=0)
    (folder / "images" / "0_astronaut.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"0_astronaut\.jpg: not a"):
        data.decoded(folder, ["0_astronaut.jpg"], (32, 32), tmp_path)


def test_captions_with_left_or_right_forbid_mirroring():
    photos = [[["a", "dog", "on", "the", "left"], ["a", "dog"]], [["a", "cat"]]]
    assert data.sidedness(photos).tolist() == [True, False]


def test_views_differ_but_are_never_mirrored_where_it_is_forbidden():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 200  # dark left, bright right
    views = [data.augment(pixels, np.random.default_rng(seed), flip=False) for seed in range(20)]
    assert all(view.shape == pixels.shape and view.dtype == np.uint8 for view in views)
    assert all(view[:, :8].mean() < view[:, -8:].mean() for view in views)
    assert len({view.tobytes() for view in views}) == 20
    flipped = [data.augment(pixels, np.random.default_rng(seed), flip=True) for seed in range(20)]
    assert any(view[:, :8].mean() > view[:, -8:].mean() for view in flipped)
