"""The decoder trained on whole captions is the one exported a step at a time."""

import numpy as np
import pytest
from keras import ops

from convert.data import END, PAD, START
from convert.decoder import DecoderConfig, build_decoder, write


@pytest.fixture(scope="module", params=["attention", "merge"])
def decoder(request):
    decoder = build_decoder(DecoderConfig(11, features=6, units=16, word_units=8, heads=4, kind=request.param))
    random = np.random.default_rng(0)
    for variable in decoder.trainable_variables:
        variable.assign(random.normal(0, 0.5, variable.shape))
    return decoder


def grid(photos: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(photos, 9, 6)).astype("float32")


def test_steps_give_the_logits_of_the_whole_caption(decoder):
    photos, tokens = grid(2), np.random.default_rng(2).integers(END, 11, (2, 3, 5)).astype("int32")
    whole = ops.convert_to_numpy(ops.log_softmax(decoder(photos, tokens)))
    for caption in range(3):
        *contexts, h, c = decoder.look(photos)
        last = np.full(2, START)
        for t in range(5):
            log_probs, attention, h, c = decoder.step(last, *contexts, h, c)
            assert ops.convert_to_numpy(log_probs) == pytest.approx(whole[:, caption, t], abs=1e-4)
            if decoder.attentive:
                assert ops.convert_to_numpy(attention).sum(axis=-1) == pytest.approx(1, abs=1e-5)
                assert attention.shape == (2, 9)
            last = tokens[:, caption, t]


def test_a_written_caption_takes_the_likeliest_word_each_time(decoder):
    photos = grid(3)
    written = ops.convert_to_numpy(write(decoder, photos, longest=6))[:, 0]
    assert written.shape == (3, 7)
    for photo, caption in enumerate(written):
        *contexts, h, c = decoder.look(photos[photo : photo + 1])
        last = np.array([START])
        for word in caption:
            if last[0] == END:
                assert word == PAD
                continue
            log_probs, _, h, c = decoder.step(last, *contexts, h, c)
            assert word == ops.convert_to_numpy(log_probs)[0, END:].argmax() + END
            last = np.array([word]) if word != PAD else last


def test_drawn_captions_follow_the_probabilities(decoder):
    photos = grid(1)
    log_probs, *_ = decoder.step(np.array([START]), *decoder.look(photos))
    expected = np.exp(ops.convert_to_numpy(log_probs)[0, END:])
    drawn = ops.convert_to_numpy(write(decoder, photos, longest=0, samples=4000, seed=3))[0, :, 0]
    frequency = np.bincount(drawn, minlength=11)[END:] / 4000
    assert frequency == pytest.approx(expected / expected.sum(), abs=0.04)


def test_what_comes_before_the_end_token_is_never_written(decoder):
    drawn = ops.convert_to_numpy(write(decoder, grid(2), longest=9, samples=200, seed=4))
    lengths = (drawn != PAD).sum(axis=-1)
    words = np.concatenate([row[:n] for row, n in zip(drawn.reshape(-1, 10), lengths.ravel(), strict=True)])
    assert words.min() >= END
