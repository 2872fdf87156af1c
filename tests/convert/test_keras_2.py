"""Files that Keras 2 wrote, run by Keras 2, and a word at a time in Keras 3."""

import json

import keras
import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from convert.foreign import TOLERANCE, recognise
from convert.keras_files import ModelError, load_model
from tests.convert.test_foreign import LENGTH, UNITS, WIDTH, WORDS, merge, shuffled

RNN = {"LSTM": layers.LSTM, "GRU": layers.GRU}


def merged(rnn, photo, words):
    return layers.add([photo, rnn(UNITS)(words)])


def init_inject(rnn, photo, words):
    return rnn(UNITS)(words, initial_state=[photo, photo] if rnn is layers.LSTM else photo)


def par_inject(rnn, photo, words):
    return rnn(UNITS)(layers.concatenate([layers.RepeatVector(LENGTH)(photo), words]))


def two_layers(rnn, photo, words):
    return layers.add([photo, rnn(UNITS)(rnn(UNITS, return_sequences=True)(words))])


def a_layer_for_each_word(rnn, photo, words):
    return layers.add([photo, rnn(UNITS)(layers.TimeDistributed(layers.Dense(3))(words))])


def attention(rnn, photo, words):
    sequence = rnn(UNITS, return_sequences=True)(words)
    regions = layers.Reshape((4, UNITS))(layers.Dense(4 * UNITS)(photo))
    return rnn(UNITS)(layers.concatenate([sequence, layers.AdditiveAttention()([sequence, regions])]))


BUILDS = [merged, init_inject, par_inject, two_layers, a_layer_for_each_word, attention]


def model_of(build, rnn=layers.LSTM, mask=True):
    photo, words = tf_keras.Input((WIDTH,)), tf_keras.Input((LENGTH,))
    embedded = layers.Dropout(0.5)(layers.Embedding(WORDS, UNITS, mask_zero=mask)(words))
    model = tf_keras.Model(
        [photo, words], layers.Dense(WORDS, "softmax")(build(rnn, layers.Dense(UNITS)(photo), embedded))
    )
    model.compile(tf_keras.optimizers.legacy.Adam(lr=1e-3), "categorical_crossentropy")
    return shuffled(model)


def same(model, loaded):
    features = np.random.default_rng(3).random((4, WIDTH), dtype=np.float32)
    tokens = np.pad(np.arange(1, 17).reshape(4, 4), ((0, 0), (LENGTH - 4, 0)))
    np.testing.assert_allclose(loaded([features, tokens]), model([features, tokens]), atol=1e-6)


@pytest.mark.parametrize("rnn", RNN.values(), ids=RNN)
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_an_h5_says_what_it_said_and_with_a_mask_a_word_at_a_time(build, rnn, tmp_path):
    model = model_of(build, rnn)
    model.save(tmp_path / "model.h5")
    loaded = load_model(tmp_path / "model.h5")
    same(model, loaded)
    assert recognise(loaded).step_difference() < TOLERANCE


@pytest.mark.parametrize("build", [merged, init_inject, par_inject])
def test_without_a_mask_the_padding_is_read(build, tmp_path):
    model_of(build, mask=False).save(tmp_path / "model.h5")
    assert recognise(load_model(tmp_path / "model.h5")).step_difference() > 100 * TOLERANCE


@pytest.mark.parametrize("build", [init_inject, par_inject])
def test_keras_3_alone_would_say_something_else(build):
    """Why what Keras 2 saved is run by Keras 2."""
    model = model_of(build)
    graph = recognise(model).model
    assert isinstance(graph, keras.Model)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        same(model, graph)


@pytest.mark.parametrize("form", ["tf", "keras"])
def test_a_saved_model_and_the_first_keras_archives(form, tmp_path):
    model = model_of(init_inject)
    path = tmp_path / ("model.keras" if form == "keras" else "model")
    model.save(path, save_format=form)
    same(model, load_model(path))


def test_an_architecture_of_keras_2_with_its_weights(tmp_path):
    model = model_of(init_inject)
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "model.h5")
    same(model, load_model(tmp_path / "model.json", tmp_path / "model.h5"))
    with pytest.raises(ModelError, match=r"holds weights alone: name the architecture \(.json\)"):
        load_model(tmp_path / "model.h5")


@pytest.mark.parametrize("mask", [True, False])
def test_what_keras_3_exports_has_no_layers_and_reads_the_whole_prefix(mask, tmp_path):
    model = shuffled(merge(keras.layers.LSTM, mask))
    model.export(tmp_path / "model", verbose=False)
    found, known = recognise(load_model(tmp_path / "model")), recognise(model)
    assert found.step_difference() == np.inf
    assert (found.features, found.longest, found.vocabulary) == (known.features, known.longest, known.vocabulary)
    features, tokens = np.random.default_rng(0).random((1, WIDTH)), np.full((1, LENGTH), 3)
    np.testing.assert_allclose(found.log_probs(features, tokens), known.log_probs(features, tokens), atol=1e-5)


def test_settings_of_keras_2_are_read(tmp_path):
    """`time_major` in its layers and `lr` in its optimizer."""
    import h5py

    model_of(merged).save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5") as file:
        config, training = json.loads(file.attrs["model_config"]), json.loads(file.attrs["training_config"])
    lstm = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "LSTM")
    assert lstm["config"]["time_major"] is False
    assert "learning_rate" in training["optimizer_config"]["config"]
    with h5py.File(tmp_path / "model.h5", "a") as file:
        rate = training["optimizer_config"]["config"].pop("learning_rate")
        training["optimizer_config"]["config"]["lr"] = rate
        file.attrs["training_config"] = json.dumps(training)
    assert recognise(load_model(tmp_path / "model.h5")).longest == LENGTH


def test_what_reads_backwards_is_refused_with_its_reason():
    model = model_of(lambda rnn, photo, words: layers.add([photo, layers.Bidirectional(rnn(UNITS // 2))(words)]))
    with pytest.raises(ModelError, match="is bidirectional: it reads words that are not yet said"):
        recognise(model)


@pytest.mark.parametrize("form", ["h5", "tf", "keras"])
def test_code_in_a_file_is_not_run(form, tmp_path):
    model = model_of(lambda rnn, photo, words: layers.Lambda(lambda x: x * 2)(merged(rnn, photo, words)))
    path = tmp_path / {"h5": "model.h5", "tf": "model", "keras": "model.keras"}[form]
    model.save(path, save_format=form)
    with pytest.raises(ModelError, match="holds a Lambda layer, which is code, and is not run"):
        load_model(path)
