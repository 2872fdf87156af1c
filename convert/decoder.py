"""The decoder: a grid of features in, a caption out, a word at a time.

One LSTM reads the words; its output asks the grid by several heads of scaled dot products (Vaswani et al. 2017); a
gate decides how much of the answer each word needs (Lu et al. 2017, "Knowing When to Look"; Huang et al. 2019,
"Attention on Attention"); the output's word vectors are the input's (Press and Wolf 2017).

The attention does not feed back into the LSTM. So in training everything but one product a word, state times recurrent
kernel, is done for all words of a batch at once, and in `step` the LSTM needs only its state and the last word. What
depends on the photo alone is computed once, in `look`, and becomes part of the encoder's graph.

    N photos, C captions a photo, T words, R regions, D units, H heads, V words in the vocabulary
"""

from dataclasses import dataclass

import keras
from keras import layers, ops

from convert.data import END, PAD, START


@dataclass(frozen=True)
class DecoderConfig:
    vocabulary: int
    features: int  # width of the encoder's grid
    units: int = 512
    word_units: int = 384
    heads: int = 8
    dropout: float = 0.4
    kind: str = "attention"  # or "merge"


def build_decoder(config: DecoderConfig) -> keras.Model:
    """The decoder of its kind, with all its weights; what it must have is what `Decoder` has."""
    from convert.merge import MergeDecoder

    decoder = {"attention": Decoder, "merge": MergeDecoder}[config.kind](config)
    decoder.build((None, None, config.features))
    return decoder


def lstm_cell(gates, c):
    """One LSTM step from the sum of its gates (B, 4 D) (Hochreiter and Schmidhuber 1997) -> h, c."""
    i, f, o, g = ops.split(gates, 4, axis=-1)
    c = ops.sigmoid(f + 1.0) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def write(decoder, grid, longest: int, samples: int = 0, seed=None):
    """Captions without a search: the likeliest word each time, or with `samples` > 0 so many drawn a photo.

    Returns:
        int32 (N, max(samples, 1), longest + 1): words, END, PAD.
    """
    captions = max(samples, 1)
    *contexts, h, c = decoder.look(grid)
    h, c = (ops.repeat(x, captions, axis=0) for x in (h, c))
    token = ops.zeros_like(h[:, 0], dtype="int32") + START
    done = token == END
    out = []
    for _ in range(longest + 1):
        log_probs, _, h, c = decoder.step(token, *contexts, h, c, captions)
        log_probs = log_probs[:, END:]  # what comes before is never written
        if samples:
            token = keras.random.categorical(log_probs, 1, dtype="int32", seed=seed)[:, 0] + END
        else:
            token = ops.cast(ops.argmax(log_probs, axis=-1), "int32") + END
        token = ops.where(done, PAD, token)
        done = ops.logical_or(done, token == END)
        out.append(token)
    return ops.reshape(ops.stack(out, axis=-1), (-1, captions, longest + 1))


class Decoder(keras.Model):
    """See the module's docstring. `look` and `step` are what is exported, `call` is what is trained."""

    contexts = ("keys", "values", "gates")  # what `look` says beside the first state
    attentive = True

    def __init__(self, config: DecoderConfig):
        super().__init__(name="decoder")
        self.config = config
        units = config.units
        self.grid_dropout = layers.Dropout(config.dropout)
        self.project = layers.Dense(units, activation="relu", name="project")
        self.grid_norm = layers.LayerNormalization(name="grid_norm")
        self.keys = layers.Dense(units, use_bias=False, name="keys")
        self.values = layers.Dense(units, name="values")
        self.first_state = layers.Dense(2 * units, activation="tanh", name="first_state")
        self.photo_gates = layers.Dense(4 * units, name="photo_gates")  # with the LSTM's bias
        self.words = layers.Embedding(
            config.vocabulary,
            config.word_units,
            keras.initializers.RandomNormal(stddev=config.word_units**-0.5),
            name="words",
        )
        self.word_dropout = layers.Dropout(config.dropout)
        self.word_gates = layers.Dense(4 * units, use_bias=False, name="word_gates")
        self.state_gates = layers.Dense(4 * units, use_bias=False, kernel_initializer="orthogonal", name="state_gates")
        self.state_dropout = layers.Dropout(config.dropout)
        self.query = layers.Dense(units, use_bias=False, name="query")
        self.merge = layers.Dense(2 * units, name="merge")
        self.out_dropout = layers.Dropout(config.dropout)
        self.to_word = layers.Dense(config.word_units, name="to_word")
        self.word_bias = self.add_weight((config.vocabulary,), "zeros", name="word_bias")

    def build(self, grid_shape, _tokens_shape=None):
        """Create every weight, so that a checkpoint can be loaded before the first batch."""
        c = self.config
        self.project.build((None, None, c.features))
        for layer in (self.grid_norm, self.keys, self.values):
            layer.build((None, None, c.units))
        for layer in (self.first_state, self.photo_gates, self.state_gates, self.query):
            layer.build((None, c.units))
        self.words.build(None)
        self.word_gates.build((None, c.word_units))
        self.merge.build((None, 2 * c.units))
        self.to_word.build((None, c.units))
        self.built = True

    def look(self, grid, training=False):
        """What depends on the photo alone. grid (N, R, features) -> contexts and first state, first axis N.

        Returns:
            keys (N, H, D/H, R) and values (N, H, R, D/H) of each head, gates (N, 4 D), h (N, D), c (N, D).
        """
        grid = self.grid_norm(self.project(self.grid_dropout(grid, training=training)))
        mean = ops.mean(grid, axis=1)
        h, c = ops.split(self.first_state(mean), 2, axis=-1)
        keys = ops.transpose(self._heads(self.keys(grid)), (0, 1, 3, 2))  # once here, and not at each word
        return keys, self._heads(self.values(grid)), self.photo_gates(mean), h, c

    def _heads(self, x):
        """(B, L, D) -> (B, H, L, D/H)."""
        heads, width = self.config.heads, self.config.units // self.config.heads
        return ops.transpose(ops.reshape(x, (-1, x.shape[1], heads, width)), (0, 2, 1, 3))

    def attend(self, h, keys, values):
        """h (B, Q, D), keys and values of `look` -> what was seen (B, Q, D), attention (B, H, Q, R), rows of sum 1."""
        scores = ops.matmul(self._heads(self.query(h)), keys) * (self.config.units // self.config.heads) ** -0.5
        attention = ops.softmax(scores)
        seen = ops.transpose(ops.matmul(attention, values), (0, 2, 1, 3))
        return ops.reshape(seen, (-1, h.shape[1], self.config.units)), attention

    def logits(self, h, seen, training=False):
        """h, seen (..., D) -> (..., V)."""
        merged, gate = ops.split(self.merge(ops.concatenate([h, seen], axis=-1)), 2, axis=-1)
        x = self.to_word(self.out_dropout(merged * ops.sigmoid(gate) + h, training=training))
        return ops.matmul(x, ops.transpose(self.words.embeddings)) + self.word_bias

    def step(self, token, keys, values, gates, h, c, captions=1):
        """One word of `captions` captions of each photo, photo by photo.

        token (N C,), keys and values as in `look`, gates (N, 4 D), h and c (N C, D) -> log_probs (N C, V),
        attention (N C, R), h, c.
        """
        if captions > 1:
            gates = ops.repeat(gates, captions, axis=0)
        h, c = lstm_cell(self.word_gates(self.words(token)) + gates + self.state_gates(h), c)
        seen, attention = self.attend(ops.reshape(h, (-1, captions, self.config.units)), keys, values)
        log_probs = ops.log_softmax(self.logits(h, ops.reshape(seen, (-1, self.config.units))))
        attention = ops.reshape(ops.mean(attention, axis=1), (-1, keys.shape[-1]))
        return log_probs, attention, h, c

    def call(self, grid, tokens, training=False):
        """Teacher forcing. grid (N, R, features), tokens (N, C, T), the targets -> logits (N, C, T, V)."""
        _, captions, length = tokens.shape
        keys, values, gates, h, c = self.look(grid, training=training)
        h, c, gates = (ops.repeat(x, captions, axis=0) for x in (h, c, gates))  # (N C, ...)
        last = ops.pad(tokens[:, :, :-1], ((0, 0), (0, 0), (1, 0)), constant_values=START)
        words = self.word_dropout(self.words(ops.reshape(last, (-1, length))), training=training)
        word_gates = self.word_gates(words) + gates[:, None]  # (N C, T, 4 D)
        outputs = []
        for t in range(length):
            h, c = lstm_cell(word_gates[:, t] + self.state_gates(h), c)
            outputs.append(h)
        units = self.config.units
        h = ops.reshape(ops.stack(outputs, axis=1), (-1, captions * length, units))  # (N, C T, D)
        h = self.state_dropout(h, training=training)
        seen, _ = self.attend(h, keys, values)
        return ops.reshape(self.logits(h, seen, training=training), (-1, captions, length, self.config.vocabulary))
