"""A caption is believed as far as the photo is known and the caption is likely."""

import hashlib
import json
import math

import numpy as np
import pytest

from function.bundles import BundleError, load_bundle
from function.captioner import Captioner, as_json
from tests.tiny_bundle import HIDDEN, SIZE, make_tiny_bundle

WEIGHTS = [0.5, -1.0] + [0.0] * (HIDDEN - 2)
FITTED = {"tensor": "state_h", "weights": WEIGHTS, "bias": 0.25, "slope": 2.0, "offset": 1.0}


def calibrated(folder, **fitted):
    make_tiny_bundle(folder)
    data = json.dumps(FITTED | fitted).encode()
    (folder / "confidence.json").write_bytes(data)
    settings = json.loads((folder / "bundle.json").read_text())
    settings["files"]["confidence.json"] = hashlib.sha256(data).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(settings))
    return folder


def photos():
    return np.random.default_rng(0).integers(0, 256, (2, SIZE[1], SIZE[0], 3), np.uint8)


def test_it_is_the_product_of_both_factors(tmp_path):
    captioner = Captioner(load_bundle(calibrated(tmp_path)))
    (states,) = captioner.bundle.encoder.run(["state_h"], {"image": photos()})
    for state, captions in zip(states, captioner.caption(photos()), strict=True):
        known = 1 / (1 + math.exp(-(0.5 * state[0] - state[1] + 0.25)))
        for caption in captions:
            score = caption.log_probability / (len(caption.tokens) + 1)
            right = 1 / (1 + math.exp(-(2 * score + 1)))
            assert caption.confidence == pytest.approx(known * right, rel=1e-5)


def test_an_answer_says_that_of_the_best_caption_and_of_each(tmp_path):
    captions = Captioner(load_bundle(calibrated(tmp_path))).caption(photos())[0]
    answer = as_json(captions)
    assert answer["confidence"] == answer["captions"][0]["confidence"] == round(captions[0].confidence, 3)
    assert [c["confidence"] for c in answer["captions"]] == [round(c.confidence, 3) for c in captions]


def test_without_calibration_there_is_none(tmp_path):
    captions = Captioner(load_bundle(make_tiny_bundle(tmp_path))).caption(photos())[0]
    assert captions[0].confidence is None
    assert "confidence" not in as_json(captions)
    assert "confidence" not in as_json(captions)["captions"][0]


def test_no_number_is_too_large(tmp_path):
    captioner = Captioner(load_bundle(calibrated(tmp_path, bias=-1e6)))
    with np.errstate(over="raise", invalid="raise"):
        assert captioner.caption(photos())[0][0].confidence == 0


@pytest.mark.parametrize(
    ("fitted", "said"),
    [
        ({"tensor": "state_x"}, "no output state_x of width 8"),
        ({"weights": [1.0]}, "no output state_h of width 1"),
        ({"weights": [[1.0]]}, "weights are not a list of numbers"),
        ({"weights": "many"}, "could not convert"),
        ({"slope": None}, "float"),
    ],
)
def test_one_that_does_not_fit_its_bundle_is_refused(tmp_path, fitted, said):
    with pytest.raises(BundleError, match=said) as refusal:
        load_bundle(calibrated(tmp_path, **fitted))
    assert "confidence.json" in str(refusal.value)
