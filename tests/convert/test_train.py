"""The training loop on a data set so small that it must be learnt by heart."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import TINY

from convert import train as training
from convert.data import PAD
from convert.results import table
from convert.settings import CHOICES, HELP, Settings
from convert.train import batches, load_best, read_average, read_start, train


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def settings_of(run):
    return Settings(**json.loads((run / "run.json").read_text())["settings"])


def test_it_learns(run):
    lines = log(run)
    assert len(lines) == 60
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert max(line["cider"] for line in lines) > 100


def test_an_interrupted_run_goes_on_where_it_stopped(run, cache, tmp_path, monkeypatch):
    settings = replace(settings_of(run), epochs=3)
    whole = tmp_path / "whole"
    train(settings, whole, cache)

    stopped, save = tmp_path / "stopped", training._save

    def stop_after_the_second(path, arrays):
        save(path, arrays)
        if path.name == "checkpoint.npz" and arrays["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", stop_after_the_second)
    with pytest.raises(KeyboardInterrupt):
        train(settings, stopped, cache)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="--resume"):
        train(settings, stopped, cache)
    train(settings, stopped, cache, resume=True)

    assert [(line["epoch"], line["cider"]) for line in log(stopped)] == [
        (line["epoch"], line["cider"]) for line in log(whole)
    ]
    assert [line["loss"] for line in log(stopped)] == pytest.approx([line["loss"] for line in log(whole)], rel=1e-3)


def test_it_stops_early_when_dev_gets_no_better(run, cache, tmp_path):
    settings = replace(settings_of(run), epochs=9, patience=2, learning_rate=1e-9)
    train(settings, tmp_path / "early", cache)
    assert len(log(tmp_path / "early")) == 3  # the first is the best, two more are no better


@pytest.mark.parametrize("depth", ["tail", "full"])
def test_the_encoder_learns_where_it_should(run, cache, tmp_path, depth):
    out = tmp_path / depth
    settings = replace(settings_of(run), depth=depth, epochs=1, encoder_rate=1.0, learning_rate=1e-4)
    train(settings, out, cache, start=[run])
    names = {path.split("/")[0] for path in load_best(out)} - {"decoder"}
    stages = {name.split("_")[0] for name in names}
    assert ("stem" in stages) == (depth == "full")
    assert {"stage6", "stage7", "head"} <= stages


def test_captions_drawn_from_the_model_are_rewarded(run, cache, tmp_path):
    settings = replace(settings_of(run), reward="cider", epochs=2, learning_rate=1e-3)
    train(settings, tmp_path / "cider", cache, start=[run])
    start, *lines = log(tmp_path / "cider")
    assert start["cider"] == pytest.approx(max(line["cider"] for line in log(run)))
    assert [line["reward"] > 0 for line in lines] == [True, True]


def test_batches_hold_each_photo_once_and_like_lengths_together():
    lengths = np.random.default_rng(0).integers(5, 20, 640)
    made = batches(lengths, 20, np.random.default_rng(1))
    assert sorted(np.concatenate(made)) == list(range(640))
    spread = np.mean([np.ptp(lengths[batch]) for batch in made])
    assert spread < 0.3 * np.ptp(lengths)


def test_the_advantage_is_over_the_other_captions_of_the_photo():
    assert training._advantage(np.array([[1.0, 2.0, 6.0]])).tolist() == [[-3.0, -1.5, 4.5]]


def test_trimming_keeps_every_word():
    tokens = np.array([[[5, 6, 7, 3, PAD, PAD, PAD, PAD]]])
    assert training._trim(tokens).tolist() == [[[5, 6, 7, 3, PAD, PAD]]]


def test_every_setting_is_described():
    assert HELP.keys() == Settings.__dataclass_fields__.keys()
    assert CHOICES.keys() <= HELP.keys()
    assert TINY.keys() <= HELP.keys()


def test_results_are_read_from_the_logs(run):
    head, _, line = table([run]).splitlines()
    best = max(entry["cider"] for entry in log(run))
    assert head.count("|") == line.count("|")
    assert f"| frozen | the decoder | the references' words | {best:.1f} |" in line


def test_runs_that_went_apart_are_averaged_and_scored(run, cache, tmp_path):
    apart = []
    for seed in (1, 2):
        apart.append(tmp_path / str(seed))
        train(replace(settings_of(run), epochs=1, seed=seed), apart[-1], cache, start=[run])
    best = train(replace(settings_of(run), epochs=0), tmp_path / "average", cache, start=apart)
    one, other, average = (load_best(folder) for folder in (*apart, tmp_path / "average"))
    for name, array in average.items():
        assert array == pytest.approx((one[name] + other[name]) / 2, abs=1e-6), name
    assert log(tmp_path / "average") == [best]
    assert [step["seed"] for step in read_start(tmp_path / "average").steps] == [1, 1, 2]
    assert "| nothing | average of 1, 2 |" in table([tmp_path / "average"])


def test_runs_with_other_weights_have_no_average(run, cache, tmp_path):
    narrow = tmp_path / "narrow"
    train(replace(settings_of(run), epochs=1, units=16), narrow, cache)
    with pytest.raises(ValueError, match="narrow is no model like"):
        read_average([run, narrow])
