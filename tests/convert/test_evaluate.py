"""Scores as the field computes them."""

import json
import shutil

import numpy as np
import pytest
from conftest import FLICKR8K, ROOT, needs_flickr8k

from convert import scores
from convert.__main__ import main
from convert.evaluate import Evaluation, compare, evaluate, save

REFERENCES = [
    ["A dog runs on the grass .", "The brown dog is running outside ."],
    ["Two people climb a snowy mountain .", "Climbers on a mountain ."],
]
needs_java = pytest.mark.skipif(not scores.has_java(), reason="no java, METEOR and PTB's tokeniser need it")


@needs_java
def test_a_reference_itself_scores_highest():
    scored = scores.score([photo[0] for photo in REFERENCES], REFERENCES)
    assert scored["BLEU-4"] == pytest.approx(100)
    assert scored["ROUGE-L"] == pytest.approx(100)
    assert scored["METEOR"] == pytest.approx(100)
    other = scores.score(["A dog outside .", "Two people on grass ."], REFERENCES)
    assert 0 < other["CIDEr"] < scored["CIDEr"]
    assert 0 < other["METEOR"] < 100


def test_without_java_the_other_scorers_still_run_and_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    scored = scores.score([photo[0] for photo in REFERENCES], REFERENCES)
    assert "METEOR" not in scored
    assert scored["BLEU-1"] == pytest.approx(100)
    assert "no java" in capsys.readouterr().err


@needs_flickr8k
def test_the_default_bundle_is_as_good_as_its_card_says():
    evaluation = evaluate(ROOT / "function" / "bundle", FLICKR8K, "dev", photos=200)
    promised = json.loads((ROOT / "function" / "bundle" / "bundle.json").read_text())["metrics"]["dev, beam 3"]["CIDEr"]
    # CIDEr's document frequencies are those of the photos scored, so 200 photos score otherwise than 1,000; the
    # standard error over 200 is about 4.
    assert np.mean(evaluation.cider) > promised - 15
    assert len(set(evaluation.captions)) > 100


def test_wrong_input_ends_in_one_line_and_status_2(tmp_path, capsys):
    assert main(["evaluate", "--data", str(tmp_path), "--bundle", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "no such file" in capsys.readouterr().err


def evaluation(path, model, cider, photos=None):
    names = photos or [f"{i}.jpg" for i in range(len(cider))]
    save(Evaluation(model, "dev", 3, names, ["a dog"] * len(names), [["a dog"]] * len(names), {}, cider), path)
    return path


def test_a_gain_on_every_photo_is_better_and_the_same_twice_tells_nothing(tmp_path):
    cider = np.random.default_rng(0).normal(60, 40, 400)
    old = evaluation(tmp_path / "old.json", "old", cider)
    gain = compare(old, evaluation(tmp_path / "new.json", "new", cider + 3))
    assert gain.difference == pytest.approx(3, abs=1e-3)
    assert str(gain).endswith("better")
    assert str(compare(old, old)).endswith("0 of them with another caption: no telling")


def test_the_interval_is_the_normal_one_of_the_mean(tmp_path):
    random = np.random.default_rng(1)
    before, gains = random.normal(60, 40, 900), random.normal(1, 30, 900)
    found = compare(
        evaluation(tmp_path / "old.json", "old", before), evaluation(tmp_path / "new.json", "new", before + gains)
    )
    half = 1.96 * gains.std() / 30
    assert found.low == pytest.approx(gains.mean() - half, abs=0.15)
    assert found.high == pytest.approx(gains.mean() + half, abs=0.15)


def test_evaluations_of_other_photos_are_not_compared(tmp_path, capsys):
    one = evaluation(tmp_path / "one.json", "one", np.ones(2))
    other = evaluation(tmp_path / "other.json", "other", np.ones(2), ["x.jpg", "y.jpg"])
    assert main(["compare", str(one), str(other)]) == 2
    assert "other photos" in capsys.readouterr().err
