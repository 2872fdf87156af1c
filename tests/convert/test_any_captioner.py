"""Captioners by chance, from the grammar of what people build: a word at a time is the whole prefix, or is refused."""

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops

from convert.foreign import TOLERANCE, recognise
from tests.convert.test_foreign import WIDTH, WORDS, shuffled

ARCHITECTURES = st.fixed_dictionaries(
    {
        "inject": st.sampled_from(["merge", "init", "pre", "attention"]),
        "join": st.sampled_from([layers.add, layers.concatenate, layers.multiply]),
        "rnn": st.sampled_from([layers.LSTM, layers.GRU]),
        "layers": st.integers(1, 3),
        "units": st.integers(1, 9),
        "dense": st.sampled_from([0, 1, 2]),
        "dropout": st.booleans(),
        "scores": st.sampled_from([layers.Attention, layers.AdditiveAttention]),
        "logits": st.booleans(),
        "words_first": st.booleans(),
        "longest": st.sampled_from([None, 8, 11]),
        "seed": st.integers(0, 99),
    }
)


def build(a) -> keras.Model:
    """A model with mask_zero, which is without padding where Keras 3 does not heed the mask."""
    units, grid = a["units"], a["inject"] == "attention"
    photo = keras.Input((4, WIDTH) if grid else (WIDTH,))
    words = keras.Input((None if a["inject"] == "init" else a["longest"],))
    seen = layers.Dense(units, "tanh")(layers.Dropout(0.3)(photo) if a["dropout"] else photo)
    x = layers.Embedding(WORDS, units, mask_zero=True)(words)
    if a["inject"] == "pre":
        x = layers.Concatenate(axis=1)([layers.Reshape((1, units))(seen), x])
    first = {"initial_state": [seen, seen] if a["rnn"] is layers.LSTM else [seen]} if a["inject"] == "init" else {}
    for at in range(a["layers"]):
        last = at == a["layers"] - 1
        x = a["rnn"](units, return_sequences=grid or not last)(x, **(first if not at else {}))
        x = layers.Dropout(0.2)(x) if a["dropout"] else x
    if grid:
        x = a["rnn"](units)(layers.concatenate([x, a["scores"]()([x, seen])]))
    if a["inject"] == "merge":
        x = a["join"]([seen, x])
    for _ in range(a["dense"]):
        x = layers.Dense(units, "relu")(x)
    out = layers.Dense(WORDS, None if a["logits"] else "softmax")(x)
    return shuffled(keras.Model([words, photo] if a["words_first"] else [photo, words], out), a["seed"])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(ARCHITECTURES)
def test_any_masked_captioner_a_word_at_a_time(a):
    assert recognise(build(a)).step_difference(prefixes=6, seed=a["seed"]) < TOLERANCE


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(ARCHITECTURES, st.lists(st.integers(1, WORDS - 1), min_size=1, max_size=7))
def test_and_any_prefix(a, prefix):
    """The same without `step_difference`, which is itself tried here."""
    model = build(a)
    found = recognise(model)
    features = np.random.default_rng(a["seed"]).random((1, *found.features), dtype=np.float32)
    states = found.first_states(features)
    for token in prefix:
        step, states = found.step(np.array([token]), features, states)
    tokens = np.pad([prefix], ((0, 0), ((found.longest or len(prefix)) - len(prefix), 0)))
    said = ops.convert_to_numpy(model([tokens, features] if a["words_first"] else [features, tokens]))
    said = said if not a["logits"] else ops.convert_to_numpy(ops.softmax(said))
    np.testing.assert_allclose(np.exp(step), said, atol=1e-4)
