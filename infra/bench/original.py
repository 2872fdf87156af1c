"""The original's way, as its users run it: Xception's pooled features and an LSTM, both from Keras' public parts.

`loop` calls `predict` for each word of a greedy caption, with the whole prefix; `compiled` calls functions that
TensorFlow has traced. Weights are random: the arithmetic is the same. 7,577 words, 256 units, 32 words at most.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from infra.bench.subject import WORDS, measure

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
VOCABULARY, LONGEST, UNITS, SIDE = 7577, 32, 256, 299


def load(compiled: bool) -> Callable[[Path], str]:
    """The two models, and the loop over words."""
    import keras
    import numpy as np
    import tensorflow as tf
    from keras import layers
    from PIL import Image

    encoder = keras.applications.Xception(include_top=False, pooling="avg", weights=None)
    photo, words = keras.Input((2048,)), keras.Input((LONGEST,))
    sequence = layers.LSTM(UNITS)(layers.Dropout(0.5)(layers.Embedding(VOCABULARY, UNITS, mask_zero=True)(words)))
    merged = layers.add([layers.Dense(UNITS, "relu")(layers.Dropout(0.5)(photo)), sequence])
    said = layers.Dense(VOCABULARY, "softmax")(layers.Dense(UNITS, "relu")(merged))
    decoder = keras.Model([photo, words], said)
    if compiled:
        look, say = tf.function(encoder), tf.function(decoder)
    else:
        look, say = (lambda x, model=model: model.predict(x, verbose=0) for model in (encoder, decoder))

    def caption(path: Path) -> str:
        pixels = np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE)), np.float32)
        features = look(pixels[None] / 127.5 - 1)
        tokens = [1]
        for _ in range(WORDS):
            prefix = np.zeros((1, LONGEST), np.float32)
            prefix[0, -len(tokens) :] = tokens
            tokens.append(int(np.argmax(say([features, prefix]))))
        return " ".join(map(str, tokens[1:]))

    return caption


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    measure(lambda: load(kind == "compiled"))
