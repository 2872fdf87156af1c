"""Somebody else's Keras captioner, from its files to a bundle that the runtime runs."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from convert.__main__ import main
from convert.applications import build_vision
from convert.keras_files import ModelError
from function.captioner import load_captioner
from function.photos import read_photo
from tests.convert.test_foreign import (
    WIDTH,
    WORDS,
    attention,
    merge,
    shuffled,
    unpadded_init_inject,
)

PHOTOS = Path(__file__).parents[2] / "events" / "photos"


@pytest.fixture
def files(tmp_path):
    """Writes a model with its tokenizer and an encoder that gives what it takes; what `export` is then told."""

    def write(build, mask=True, words=WORDS, rnn=layers.LSTM):
        model = shuffled(build(rnn, mask))
        model.save(tmp_path / "model.keras")
        index = {"startseq": 1, "endseq": 2} | {f"word{at}": at for at in range(3, words)}
        (tmp_path / "words.json").write_text(json.dumps(index))
        photo = keras.Input((32, 32, 3))
        grid = layers.Conv2D(WIDTH, 7, 25, activation="relu")(layers.Rescaling(1 / 255)(photo))  # (2, 2)
        vector = layers.GlobalAveragePooling2D()(grid)
        takes_grid = len(model.inputs[0].shape) == 3
        shuffled(keras.Model(photo, layers.RepeatVector(5)(vector) if takes_grid else vector)).save(
            tmp_path / "encoder.keras"
        )
        named = {"model": "model.keras", "tokenizer": "words.json", "encoder": "encoder.keras", "out": "bundle"}
        return ["export", *(f"--{flag}={tmp_path / name}" for flag, name in named.items()), f"--images={PHOTOS}"]

    return write


@pytest.mark.parametrize(
    ("build", "mask", "kind"),
    [
        (merge, True, "step"),
        (unpadded_init_inject, True, "step"),
        (attention, True, "step"),
        (merge, False, "prefix"),
    ],
)
def test_a_model_becomes_a_bundle_that_says_the_same(files, tmp_path, capsys, build, mask, kind):
    assert main(files(build, mask)) == 0
    said = capsys.readouterr().out
    assert f"decoder: {kind} (" in said
    assert "7 photos" in said
    assert "0 captions differ: passed" in said
    report = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert (report["decoder"], report["other_captions"]) == (kind, 0)
    assert ("Train with mask_zero=True" in report["why"]) == (kind == "prefix")
    captioner = load_captioner(tmp_path / "bundle")
    photo = read_photo((PHOTOS / "chelsea.jpg").read_bytes(), captioner.image_size)
    assert captioner.caption(photo.pixels[None])[0][0].text


def test_gru_too(files, capsys):
    assert main(files(merge, rnn=layers.GRU)) == 0


def test_a_tokenizer_of_another_training_is_refused(files, tmp_path, capsys):
    assert main(files(merge, words=WORDS + 7)) == 2
    said = capsys.readouterr().err
    assert f"the tokenizer has {WORDS + 7} tokens, padding counted, and the model chooses among {WORDS}" in said
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_says_something_else_is_not_written(files, tmp_path, capsys, monkeypatch):
    from convert.foreign import Captioner

    honest = Captioner.step

    def wrong(self, token, features, states):
        log_probs, after = honest(self, token, features, states)
        return log_probs[:, ::-1], after

    monkeypatch.setattr(Captioner, "step", wrong)
    monkeypatch.setattr(Captioner, "step_difference", lambda self: 0.0)
    assert main(files(merge)) == 2
    assert "does not say what the model says, and is not written" in capsys.readouterr().err
    assert list(tmp_path.glob("bundle*")) == []


def test_a_keras_file_without_its_tokenizer_is_said_to_need_it(tmp_path, capsys):
    assert main(["export", "--model", str(tmp_path / "model.h5"), "--out", str(tmp_path / "b")]) == 2
    assert "needs its --tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "width"), [("vgg16", 4096), ("vgg16", 512), ("mobilenetv2", 1280)])
def test_known_encoders_give_the_features_that_people_take(name, width):
    vision = build_vision(name, (width,), weights=None)
    assert vision.call(np.zeros((1, *vision.size, 3), "float32")).shape == (1, width)


def test_a_grid_of_features_is_a_row_of_regions():
    vision = build_vision("mobilenetv2", (49, 1280), weights=None)
    assert vision.call(np.zeros((1, *vision.size, 3), "float32")).shape == (1, 49, 1280)


def test_features_of_another_encoder_are_refused_by_both_their_names():
    with pytest.raises(ModelError, match=r"mobilenetv2 gives features of shape .*1280.*, the model takes \(2048,\)"):
        build_vision("mobilenetv2", (2048,), weights=None)
    with pytest.raises(ModelError, match="no encoder is called resnet5000: xception, inceptionv3"):
        build_vision("resnet5000", (2048,))
