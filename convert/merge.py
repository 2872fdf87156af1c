"""The original: one vector of the photo and one LSTM over the words, added at the end (Tanti, Gatt and Camilleri 2018).

Tutorials build it so, from Xception's pooled features: the photo never reaches the LSTM, which reads the
words alone; what both say is added, goes through one more layer, and a softmax over all words says the next. It is here
to be measured beside `decoder.py`, whose signatures it has.
"""

import keras
from keras import layers, ops

from convert.data import START
from convert.decoder import DecoderConfig, lstm_cell


class MergeDecoder(keras.Model):
    """See the module's docstring; N photos, C captions a photo, T words, D units, V words in the vocabulary."""

    contexts = ("photo",)
    attentive = False

    def __init__(self, config: DecoderConfig):
        super().__init__(name="decoder")
        self.config = config
        self.photo_dropout = layers.Dropout(config.dropout)
        self.photo = layers.Dense(config.units, activation="relu", name="photo")
        self.words = layers.Embedding(config.vocabulary, config.word_units, name="words")
        self.word_dropout = layers.Dropout(config.dropout)
        self.word_gates = layers.Dense(4 * config.units, name="word_gates")
        self.state_gates = layers.Dense(
            4 * config.units, use_bias=False, kernel_initializer="orthogonal", name="state_gates"
        )
        self.hidden = layers.Dense(config.units, activation="relu", name="hidden")
        self.to_word = layers.Dense(config.vocabulary, name="to_word")

    def build(self, grid_shape, _tokens_shape=None):
        """Create every weight, so that a checkpoint can be loaded before the first batch."""
        c = self.config
        self.photo.build((None, c.features))
        self.words.build(None)
        self.word_gates.build((None, c.word_units))
        for layer in (self.state_gates, self.hidden, self.to_word):
            layer.build((None, c.units))
        self.built = True

    def look(self, grid, training=False):
        """grid (N, R, features), pooled here -> photo (N, D), and h and c (N, D), which begin at nothing."""
        photo = self.photo(self.photo_dropout(ops.mean(grid, axis=1), training=training))
        return photo, ops.zeros_like(photo), ops.zeros_like(photo)

    def step(self, token, photo, h, c, captions=1):
        """One word of `captions` captions of each photo: token, h and c (N C, …), photo (N, D).

        Returns:
            log_probs (N C, V), None for the attention that it has not, h, c.
        """
        h, c = lstm_cell(self.word_gates(self.words(token)) + self.state_gates(h), c)
        merged = h + (ops.repeat(photo, captions, axis=0) if captions > 1 else photo)
        return ops.log_softmax(self.to_word(self.hidden(merged))), None, h, c

    def call(self, grid, tokens, training=False):
        """Teacher forcing. grid (N, R, features), tokens (N, C, T), the targets -> logits (N, C, T, V)."""
        _, captions, length = tokens.shape
        photo, h, c = self.look(grid, training=training)
        h, c = (ops.repeat(x, captions, axis=0) for x in (h, c))
        last = ops.pad(tokens[:, :, :-1], ((0, 0), (0, 0), (1, 0)), constant_values=START)
        words = self.word_dropout(self.words(ops.reshape(last, (-1, length))), training=training)
        word_gates = self.word_gates(words)  # (N C, T, 4 D)
        outputs = []
        for t in range(length):
            h, c = lstm_cell(word_gates[:, t] + self.state_gates(h), c)
            outputs.append(h)
        merged = ops.stack(outputs, axis=1) + ops.repeat(photo, captions, axis=0)[:, None]  # (N C, T, D)
        logits = self.to_word(self.hidden(merged))
        return ops.reshape(logits, (-1, captions, length, self.config.vocabulary))
