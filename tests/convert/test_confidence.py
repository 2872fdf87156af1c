"""Confidence means what it says."""

import json
import shutil

import numpy as np
import pytest

from convert import confidence
from convert.__main__ import main
from convert.confidence import Calibration, logistic
from convert.export import export
from convert.unlike import KINDS
from function.bundles import load_bundle
from function.confidence import sigmoid


def test_logistic_regression_finds_the_weights_that_drew_its_data():
    random = np.random.default_rng(0)
    x = random.normal(3, 2, (20_000, 2))
    y = random.random(20_000) < sigmoid(x @ [1.0, -0.5] + 0.3)
    weights, bias = logistic(x, y)
    assert weights == pytest.approx([1.0, -0.5], abs=0.05)
    assert bias == pytest.approx(0.3, abs=0.15)


def test_a_penalty_keeps_weights_finite_where_a_line_parts_the_classes():
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    weights, _ = logistic(x, np.array([0, 0, 1, 1]), penalty=1.0)
    assert 0 < weights[0] < 2


def calibration(said, right):
    return Calibration(np.array(said), np.array(right), 66.0, {}, np.ones(len(said)))


def test_the_error_is_nothing_where_what_was_said_is_so():
    said = np.repeat([0.1, 0.9], 500)
    right = np.concatenate([np.tile([True] + 9 * [False], 50), np.tile([False] + 9 * [True], 50)])
    assert calibration(said, right).error == pytest.approx(0, abs=1e-9)
    assert calibration(said, ~right).error == pytest.approx(0.8)


def test_the_area_is_one_where_right_captions_are_surer_and_a_half_where_nothing_is_told():
    right = np.arange(100) >= 60
    assert calibration(np.arange(100) / 100, right).area == pytest.approx(1)
    assert calibration(np.full(100, 0.4), right).area == pytest.approx(0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_pictures_differ_and_come_out_of_the_seed(kind):
    first, again = (kind(np.random.default_rng(1)) for _ in range(2))
    other = kind(np.random.default_rng(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    export(run, folder, "tiny")
    return folder


def test_a_calibrated_bundle_knows_photos_from_drawings(bundle, flickr, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(confidence, "DRAWN", 4)
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    status = main(["calibrate", "--bundle", str(copy), "--data", str(flickr), "--diagram", str(tmp_path / "d.svg")])
    assert status == 0
    assert "calibration error" in capsys.readouterr().out
    assert (tmp_path / "d.svg").read_text().count("<circle") == 8  # dev photos, a bin each
    loaded = load_bundle(copy)
    assert loaded.confidence.tensor in loaded.states
    assert json.loads((copy / "bundle.json").read_text())["files"]["confidence.json"]
