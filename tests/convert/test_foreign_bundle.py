"""Somebody else's Keras captioner, from its files to a bundle that the runtime runs."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tensorflow as tf
import tf_keras
from keras import layers

from convert.__main__ import main
from convert.applications import build_vision
from convert.export import graph_of, sha256
from convert.foreign_bundle import at_least
from convert.graphs import multiply_adds, parameters
from convert.keras_files import ModelError
from convert.quantise import optimised
from function.captioner import Caption, load_captioner
from function.photos import read_photo
from tests.convert.conftest import needs_xception
from tests.convert.test_foreign import (
    WIDTH,
    WORDS,
    attention,
    merge,
    shuffled,
    unpadded_init_inject,
)
from tests.convert.test_keras_2 import init_inject, model_of
from tests.convert.test_tokenizers import LEGACY

PHOTOS = Path(__file__).parents[2] / "events" / "photos"


@pytest.fixture
def files(tmp_path):
    """Writes a model with its tokenizer and an encoder that gives what it takes; what `export` is then told."""

    def write(build, mask=True, words=WORDS, rnn=layers.LSTM):
        model = shuffled(build(rnn, mask, **({"vocabulary": words} if words > 1000 else {})))
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
    assert "100 photos" in said
    assert "0 captions differ: passed" in said
    report = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert (report["decoder"], report["photos"], report["other_captions"], report["passed"]) == (kind, 100, 0, True)
    assert report["files"]["decoder.onnx"] == sha256(tmp_path / "bundle" / "decoder.onnx")
    states = {"next_state_0", "next_state_1"} if kind == "step" else set()
    assert all(step.keys() == {"log_probs"} | states and max(step.values()) < 1e-3 for step in report["steps"])
    page = (tmp_path / "bundle" / "parity.html").read_text()
    assert "<h1>Parity: passed</h1>" in page
    assert report["captions"][0][0] in page
    assert ("Train with mask_zero=True" in report["why"]) == (kind == "prefix")
    captioner = load_captioner(tmp_path / "bundle")
    photo = read_photo((PHOTOS / "chelsea.jpg").read_bytes(), captioner.image_size)
    assert captioner.caption(photo.pixels[None])[0][0].text


def test_gru_too(files, capsys):
    assert main(files(merge, rnn=layers.GRU)) == 0


def test_a_saved_model_of_keras_3_reads_the_whole_prefix(files, tmp_path, capsys):
    arguments = files(merge)
    keras.models.load_model(tmp_path / "model.keras").export(tmp_path / "exported", verbose=False)
    assert main([*arguments, f"--model={tmp_path / 'exported'}"]) == 0
    said = capsys.readouterr().out
    assert "decoder: prefix (a SavedModel that Keras 3 exported holds no layers any more" in said
    assert "0 captions differ: passed" in said


def test_keras_2_from_its_file_to_captions(files, tmp_path, capsys):
    """Init-inject, whose mask Keras 2 heeds and Keras 3 does not: so a word at a time, though Keras 3 could not."""
    arguments = files(merge)
    model_of(init_inject).save(tmp_path / "model.h5")
    assert main([*arguments, f"--model={tmp_path / 'model.h5'}"]) == 0
    said = capsys.readouterr().out
    assert "decoder: step (equal to the whole prefix" in said
    assert "0 captions differ: passed" in said


@pytest.mark.parametrize("opset", [13, 17])
def test_the_opset_is_chosen_and_stated(files, tmp_path, opset):
    assert main([*files(merge), f"--opset={opset}"]) == 0
    graph = onnx.load(tmp_path / "bundle" / "encoder.onnx")
    assert next(entry.version for entry in graph.opset_import if entry.domain == "") == opset
    assert json.loads((tmp_path / "bundle" / "parity.json").read_text())["opset"] == opset


@pytest.mark.parametrize("option", ["--float16", f"--int8={PHOTOS}"])
def test_smaller_is_measured_after_the_exact_one_was_proved(files, tmp_path, capsys, option):
    assert main([*files(merge, words=2000), option]) == 0
    exact, loss = capsys.readouterr().out.split("made smaller: ")
    assert "0 captions differ: passed" in exact
    said = re.search(r"size ([\d.]+) -> ([\d.]+) MB .* encoder .* ms .* of 100 captions \d+ differ", loss)
    assert said
    kinds = parameters(onnx.load(tmp_path / "bundle" / "decoder.onnx"))
    smaller, whole = kinds["float16" if option == "--float16" else "int8"][0], kinds.get("float", (0, 0))[0]
    assert smaller > 4 * whole
    assert load_captioner(tmp_path / "bundle").caption(np.zeros((1, 32, 32, 3), np.uint8))[0][0].text


def test_a_bundle_is_made_smaller_by_a_command_too(files, tmp_path, capsys):
    assert main(files(merge, words=2000)) == 0
    bundle, out = tmp_path / "bundle", tmp_path / "smaller"
    wanted = ["quantise", f"--bundle={bundle}", f"--out={out}", f"--int8={PHOTOS}", "--part=decoder"]
    assert main([*wanted, f"--images={PHOTOS}"]) == 0
    assert "of 7 captions" in capsys.readouterr().out
    assert (out / "encoder.onnx").read_bytes() == (bundle / "encoder.onnx").read_bytes()
    assert (out / "decoder.onnx").stat().st_size < (bundle / "decoder.onnx").stat().st_size / 2


def test_a_bundle_is_shown_in_one_screen(files, tmp_path, capsys):
    assert main(files(merge)) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "bundle")]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 60
    for part in (
        "model: ",
        "photos   32 x 32",
        "start 1 'startseq', end 2 'endseq'",
        "opset 18",
        "weights ",
        "operators ",
        f"out       log_probs tensor(float) (B, {WORDS})",
        "parity: 100 photos, 0 captions differ",
    ):
        assert part in said
    assert main(["inspect", str(tmp_path)]) == 2
    assert "bundle.json" in capsys.readouterr().err


def test_multiply_adds_are_those_of_the_layers(tmp_path):
    photo = keras.Input((8, 8, 3))
    model = keras.Model(photo, layers.Dense(5)(layers.Flatten()(layers.Conv2D(4, 3, padding="same")(photo))))
    graph = graph_of(
        lambda image: {"features": model(image)}, [tf.TensorSpec((None, 8, 8, 3), tf.float32, "image")], {}, "N"
    )
    assert multiply_adds(graph) == 8 * 8 * 4 * 3 * 9 + 8 * 8 * 4 * 5


def test_a_tie_may_go_either_way_and_is_counted(files, tmp_path, capsys, monkeypatch):
    """Two words of equal weights: which of them is said is rounding's choice."""
    from convert import foreign_bundle

    arguments = files(merge)
    model = keras.models.load_model(tmp_path / "model.keras")
    kernel, bias = model.layers[-1].get_weights()
    kernel[:, 7], bias[7] = kernel[:, 9], bias[9] = kernel[:, 9], 50.0  # both are likelier than all others
    model.layers[-1].set_weights([kernel, bias])
    model.save(tmp_path / "model.keras")
    monkeypatch.setattr(
        foreign_bundle.Runtime,
        "caption",
        lambda self, *_: [[Caption("", 0.0, tokens=(9,) * self.bundle.longest_caption)]],
    )
    assert main(arguments) == 0
    assert "0 captions differ, 100 behind a tie: passed" in capsys.readouterr().out


def test_few_photos_are_seen_in_parts():
    photos = [np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)]
    seen = at_least(5, photos)
    assert [part.shape for part in seen] == [(16, 20, 3)] * 5
    assert len({part.tobytes() for part in seen}) == 5
    with pytest.raises(ModelError, match="no photos to compare on"):
        at_least(5, [])


@needs_xception
def test_the_classic_model_at_its_real_size(tmp_path, capsys):
    """Xception's 2,048 features, 7,577 words, 256 units, 32 words at most, as its tutorials build and save it."""
    photo, words = tf_keras.Input((2048,)), tf_keras.Input((32,))
    vector = tf_keras.layers.Dense(256, "relu")(tf_keras.layers.Dropout(0.5)(photo))
    embedded = tf_keras.layers.Embedding(7577, 256, mask_zero=True)(words)
    sequence = tf_keras.layers.LSTM(256)(tf_keras.layers.Dropout(0.5)(embedded))
    merged = tf_keras.layers.Dense(256, "relu")(tf_keras.layers.add([vector, sequence]))
    model = tf_keras.Model([photo, words], tf_keras.layers.Dense(7577, "softmax")(merged))
    said = model.layers[-1]
    said.set_weights([40 * weight for weight in said.get_weights()])  # as sure of its words as one that was trained
    model.save(tmp_path / "model_9.h5")
    tokenizer = LEGACY / "dataflair_tokenizer.p"
    if not tokenizer.exists():
        tokenizer = tmp_path / "words.txt"
        tokenizer.write_text("\n".join(["<pad>", "end", "start", *(f"word{at}" for at in range(3, 7577))]))
    paths = {"model": tmp_path / "model_9.h5", "tokenizer": tokenizer, "images": PHOTOS, "out": tmp_path / "bundle"}
    assert main(["export", *(f"--{name}={path}" for name, path in paths.items()), "--encoder=xception"]) == 0
    said = capsys.readouterr().out
    assert "decoder: step (" in said
    assert "100 photos, up to 32 words" in said
    assert "0 captions differ: passed" in said


@needs_xception
def test_xception_keeps_the_top_features_of_a_photo(tmp_path):
    vision = build_vision("xception", (2048,))
    pixels = read_photo((PHOTOS / "chelsea.jpg").read_bytes(), vision.size).pixels[None]
    known = np.asarray(vision.call(pixels.astype("float32")))[0]

    def look(image):
        return {"features": vision.call(tf.cast(image, tf.float32))}

    graph = optimised(graph_of(look, [tf.TensorSpec((None, 299, 299, 3), tf.uint8, "image")], {}, "N"))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["features"], {"image": pixels})[0][0]
    assert known.std() > 0.1  # a photo seen with trained weights
    np.testing.assert_array_equal(np.argsort(-found)[:20], np.argsort(-known)[:20])
    np.testing.assert_allclose(found, known, atol=1e-4)


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
