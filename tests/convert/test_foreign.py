"""Captioners as people build them, word by word against the whole prefix."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from convert.foreign import TOLERANCE, recognise
from convert.keras_files import ModelError, load_model

WORDS, LENGTH, WIDTH, UNITS = 40, 9, 12, 8
RNN = {"LSTM": layers.LSTM, "GRU": layers.GRU}


def inputs(grid=False, words=LENGTH):
    return keras.Input((5, WIDTH) if grid else (WIDTH,)), keras.Input((words,))


def embedded(words, mask, vocabulary=WORDS):
    return layers.Dropout(0.5)(layers.Embedding(vocabulary, UNITS, mask_zero=mask)(words))


def said(x, activation="softmax", vocabulary=WORDS):
    return layers.Dense(vocabulary, activation)(layers.Dense(UNITS, "relu")(x))


def merge(rnn, mask, join=layers.add, activation="softmax", vocabulary=WORDS):
    photo, words = inputs()
    vector = layers.Dense(UNITS, "relu")(layers.Dropout(0.5)(photo))
    merged = join([vector, rnn(UNITS)(embedded(words, mask, vocabulary))])
    return keras.Model([photo, words], said(merged, activation, vocabulary))


def words_first(rnn, mask):
    photo, words = inputs()
    return keras.Model(
        [words, photo], said(layers.add([layers.Dense(UNITS)(photo), rnn(UNITS)(embedded(words, mask))]))
    )


def init_inject(rnn, mask, words=LENGTH):
    photo, words = inputs(words=words)
    states = [layers.Dense(UNITS, "tanh")(photo) for _ in range(2 if rnn is layers.LSTM else 1)]
    return keras.Model([photo, words], said(rnn(UNITS)(embedded(words, mask), initial_state=states)))


def pre_inject(rnn, mask, words=LENGTH):
    photo, words = inputs(words=words)
    first = layers.Reshape((1, UNITS))(layers.Dense(UNITS)(photo))
    sequence = layers.Concatenate(axis=1)([first, layers.Embedding(WORDS, UNITS, mask_zero=mask)(words)])
    return keras.Model([photo, words], said(rnn(UNITS)(sequence)))


def par_inject(rnn, mask):
    photo, words = inputs()
    beside = layers.RepeatVector(LENGTH)(layers.Dense(UNITS)(photo))
    return keras.Model([photo, words], said(rnn(UNITS)(layers.concatenate([beside, embedded(words, mask)]))))


def two_layers(rnn, mask):
    photo, words = inputs()
    sequence = rnn(UNITS, return_sequences=True)(embedded(words, mask))
    return keras.Model([photo, words], said(layers.add([layers.Dense(UNITS)(photo), rnn(UNITS + 0)(sequence)])))


def a_word_after_each(rnn, mask):
    photo, words = inputs(words=None)
    states = [layers.Dense(UNITS)(photo) for _ in range(2 if rnn is layers.LSTM else 1)]
    sequence = rnn(UNITS, return_sequences=True)(embedded(words, mask), initial_state=states)
    return keras.Model([photo, words], layers.TimeDistributed(layers.Dense(WORDS))(sequence))


def attention(rnn, mask, kind=layers.AdditiveAttention):
    photo, words = inputs(grid=True, words=None)
    regions = layers.Dense(UNITS)(photo)
    sequence = rnn(UNITS, return_sequences=True)(embedded(words, mask))
    seen = kind()([sequence, regions])
    return keras.Model([photo, words], layers.Dense(WORDS, "softmax")(layers.concatenate([sequence, seen])))


def shuffled(model, seed=1):
    """The model with weights that make every part count."""
    chance = np.random.default_rng(seed)
    model.set_weights([chance.normal(0, 0.6, weight.shape) for weight in model.get_weights()])
    return model


def unpadded_init_inject(rnn, mask):
    return init_inject(rnn, mask, words=None)


MASKED = [merge, words_first, two_layers, unpadded_init_inject, a_word_after_each, attention]


@pytest.mark.parametrize("rnn", RNN.values(), ids=RNN)
@pytest.mark.parametrize("build", MASKED, ids=lambda build: build.__name__)
def test_with_a_mask_a_word_at_a_time_is_the_whole_prefix(build, rnn):
    assert recognise(shuffled(build(rnn, mask=True))).step_difference() < TOLERANCE


@pytest.mark.parametrize("build", [merge, init_inject, par_inject, two_layers], ids=lambda build: build.__name__)
def test_without_a_mask_the_padding_is_read_and_it_is_not(build):
    assert recognise(shuffled(build(layers.LSTM, mask=False))).step_difference() > 100 * TOLERANCE


@pytest.mark.parametrize("build", [init_inject, par_inject])
def test_a_mask_that_keras_does_not_heed_is_not_believed(build):
    """The file says mask_zero, and Keras 3 reads the padding all the same."""
    model = shuffled(build(layers.LSTM, mask=True))
    photo, tokens = np.ones((1, WIDTH), np.float32), np.zeros((1, LENGTH))
    tokens[0, -1] = 3
    changed = [weight.copy() for weight in model.get_weights()]
    embedding = next(at for at, weight in enumerate(changed) if weight.shape == (WORDS, UNITS))
    changed[embedding][0] += 1  # the padding's
    before = ops.convert_to_numpy(model([photo, tokens]))
    model.set_weights(changed)
    assert np.abs(ops.convert_to_numpy(model([photo, tokens])) - before).max() > 1e-3
    assert recognise(model).step_difference() > TOLERANCE


@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.parametrize("join", [layers.add, layers.concatenate, layers.multiply], ids=lambda join: join.__name__)
def test_however_it_merges_and_whatever_it_ends_in(join, activation):
    found = recognise(shuffled(merge(layers.LSTM, True, join, activation)))
    assert found.step_difference() < TOLERANCE
    log_probs = ops.convert_to_numpy(found.log_probs(np.ones((1, WIDTH)), np.ones((1, LENGTH))))
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-4)


def test_dot_attention_too():
    assert recognise(shuffled(attention(layers.LSTM, True, layers.Attention))).step_difference() < TOLERANCE


@pytest.mark.parametrize("rnn", RNN.values(), ids=RNN)
@pytest.mark.parametrize(("mask", "words", "same"), [(True, LENGTH, True), (False, None, True), (False, LENGTH, False)])
def test_a_photo_as_the_first_word_begins_the_state(rnn, mask, words, same):
    """It stands before the padding, which without a mask is read after it."""
    found = recognise(shuffled(pre_inject(rnn, mask, words)))
    assert (found.step_difference() < TOLERANCE) == same
    states = found.first_states(np.ones((2, WIDTH), np.float32))
    assert [state.shape for state in states] == [(2, UNITS)] * (2 if rnn is layers.LSTM else 1)
    assert np.abs(states[0]).max() > 0


def test_what_is_recognised(request):
    found = recognise(words_first(layers.GRU, True))
    assert (found.photo, found.words, found.features, found.longest, found.vocabulary) == (
        1,
        0,
        (WIDTH,),
        LENGTH,
        WORDS,
    )


def test_what_cannot_be_converted_is_said_with_its_reason():
    photo, words = inputs()
    with pytest.raises(ModelError, match="it has 1 inputs"):
        recognise(keras.Model(photo, layers.Dense(2)(photo)))
    with pytest.raises(ModelError, match="goes into an Embedding"):
        recognise(keras.Model([photo, words], layers.concatenate([photo, words])))
    x = layers.Bidirectional(layers.LSTM(3))(layers.Embedding(WORDS, 4)(words))
    with pytest.raises(ModelError, match="bidirectional: it reads words that are not yet said"):
        recognise(keras.Model([photo, words], layers.concatenate([x, photo])))
    with pytest.raises(ModelError, match="no LSTM or GRU"):
        recognise(
            keras.Model([photo, words], layers.concatenate([photo, layers.Flatten()(layers.Embedding(9, 2)(words))]))
        )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("build", [merge, init_inject, par_inject])
def test_files_are_loaded_as_they_were_saved(tmp_path, build, suffix):
    model = shuffled(build(layers.LSTM, True))
    model.save(tmp_path / f"model{suffix}")
    loaded = recognise(load_model(tmp_path / f"model{suffix}"))
    features, tokens = np.ones((1, WIDTH)), np.full((1, LENGTH), 3)
    np.testing.assert_allclose(
        loaded.log_probs(features, tokens), recognise(model).log_probs(features, tokens), atol=1e-5
    )


def test_an_architecture_with_weights_beside_it(tmp_path):
    model = shuffled(merge(layers.LSTM, True))
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = load_model(tmp_path / "model.json", tmp_path / "model.weights.h5")
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ModelError, match="without weights: say --weights"):
        load_model(tmp_path / "model.json")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.h5", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer.*git lfs pull"),
        ("a.h5", b"\x89HDF broken", "cannot be read as a Keras model"),
        ("a.keras", b"PK broken", "cannot be read as a Keras model"),
        ("a.txt", b"hello", "cannot be read as a Keras model"),
    ],
)
def test_what_is_no_model_is_said_to_be_none(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        load_model(tmp_path / name)


def test_layers_without_their_code_are_named(tmp_path):
    class Mine(layers.Dense):
        pass

    photo, words = inputs()
    model = keras.Model([photo, words], Mine(3)(layers.concatenate([photo, words])))
    model.save(tmp_path / "model.keras")
    config = json.loads(model.to_json())
    assert "Mine" in json.dumps(config)
    with pytest.raises(ModelError, match=r"needs Mine, a layer of its own"):
        load_model(tmp_path / "model.keras")
