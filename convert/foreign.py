"""Somebody else's captioner as a decoder that says one word at a time, found from its graph and proved by numbers.

The model has two inputs, the photo's features and the words so far, padded on the left, and says the next word:

    features ──…──┐
                  ├─ merged, injected as first state, as first word, or beside each word ─…─ Dense ─ softmax
    words ─ Embedding ─ LSTM or GRU, one or several ──┘

`Captioner.step` runs that very graph with sequences of one word, each recurrent layer being its cell with its state
given and returned. Whether this is the same function is not argued from names but tried: with `mask_zero` a padded
prefix leaves the states as they were, without it the padding itself is read, and only the whole prefix will do. Nor is
a mask in the file a promise: Keras 3 gives none to a recurrent layer that is given its first state, and loses it where
words are concatenated with what has none; Keras 2 heeds it there. The whole prefix is run by whichever saved the model.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import keras
import numpy as np
import tf_keras
from keras import layers, ops

from convert.keras_files import Exported, Model, ModelError, modern

CELLS = (layers.LSTM, layers.GRU, layers.SimpleRNN)
TOLERANCE = 1e-4  # in log-probability
FUNCTIONAL = (keras.src.models.functional.Functional, tf_keras.src.engine.functional.Functional, Exported)
LEAST = -20.0  # log-probabilities below are not compared
TINY = 1e-37  # a probability, so that its logarithm is finite


@dataclass(frozen=True)
class Captioner:
    """A recognised model; L words at most, V in the vocabulary."""

    whole: Model  # as it was saved
    model: keras.Model | None  # its graph in Keras 3; None where it has no layers any more
    photo: int  # which of the two inputs
    words: int
    softmax: bool  # whether it ends in probabilities, and not in logits

    @property
    def features(self) -> tuple[int, ...]:
        """The shape of a photo's features: (width,) or (regions, width)."""
        return tuple(self.whole.inputs[self.photo].shape[1:])

    @property
    def longest(self) -> int | None:
        """How many words a prefix has, padding counted; None for any number."""
        return self.whole.inputs[self.words].shape[1]

    @property
    def vocabulary(self) -> int:
        return self.whole.outputs[0].shape[-1]

    @cached_property
    def recurrent(self) -> list[keras.Layer]:
        """The layers that have states, in the order of the graph."""
        depths = sorted(self.model._nodes_by_depth.items(), reverse=True)
        found = [node.operation for _, nodes in depths for node in nodes]
        return [layer for layer in found if isinstance(layer, CELLS)]

    def log_probs(self, features, tokens):
        """The next word's log-probabilities, (B, V), by the whole prefix (B, L), left-padded with 0 to `longest`."""
        return self._log(self._call(features, tokens, self.whole))

    def first_states(self, features):
        """The states, each (B, units), before the first word."""
        states: dict = {}
        tokens = ops.zeros((ops.shape(features)[0], 1), "int32")
        self._through(features, tokens, lambda layer: _Look(layer, states))
        return [state for layer in self.recurrent for state in states[layer.name]]

    def step(self, token, features, states):
        """token (B,), features (B, …), states -> log_probs (B, V), states."""
        given, left = {}, list(states)
        for layer in self.recurrent:
            given[layer.name] = [left.pop(0) for _ in _sizes(layer)]
        after: dict = {}
        said = self._through(features, token[:, None], lambda layer: _Step(layer, given, after))
        return self._log(said), [state for layer in self.recurrent for state in after[layer.name]]

    def step_difference(self, prefixes: int = 24, seed: int = 0) -> float:
        """How far `step` is from the whole prefix at worst, over random prefixes of every length up to 8.

        Infinite where the graph cannot be run with a single word.
        """
        if self.model is None:
            return float("inf")
        chance = np.random.default_rng(seed)
        longest = min(self.longest or 8, 8)
        features = chance.random((prefixes, *self.features), dtype=np.float32)
        tokens = chance.integers(1, self.vocabulary, (prefixes, longest))
        worst = 0.0
        try:
            states = self.first_states(features)
            for length in range(1, longest + 1):
                step, states = self.step(tokens[:, length - 1], features, states)
                padded = np.pad(tokens[:, :length], ((0, 0), ((self.longest or length) - length, 0)))
                whole = ops.convert_to_numpy(self.log_probs(features, padded))
                seen = whole > LEAST
                difference = np.abs(ops.convert_to_numpy(step) - whole)[seen].max()
                worst = float(np.maximum(worst, difference))  # which keeps NaN, and so believes nothing
        except Exception:  # whatever a layer says of a shape that it was not made for
            return float("inf")
        return worst

    def _through(self, features, tokens, cell):
        """The graph, with a sequence of one word, and `cell(layer)` in the place of each recurrent layer."""

        def replaced(operation):
            if isinstance(operation, CELLS):
                return cell(operation)
            if isinstance(operation, layers.RepeatVector):  # beside each word: here is one
                return lambda x: x[:, None]
            return operation

        return self._call(features, tokens, lambda inputs: self.model._run_through_graph(inputs, operation_fn=replaced))

    def _call(self, features, tokens, function):
        inputs = [features, tokens] if self.photo == 0 else [tokens, features]
        inputs = [ops.cast(x, tensor.dtype) for x, tensor in zip(inputs, self.whole.inputs, strict=True)]
        said = function(inputs)
        said = said[0] if isinstance(said, list | tuple) else said
        return said[:, -1] if len(said.shape) == 3 else said  # of a model that says a word after each: the last

    def _log(self, said):
        return ops.log(ops.maximum(said, TINY)) if self.softmax else ops.log_softmax(said)


def recognise(model: Model) -> Captioner:
    """The captioner that a model is.

    Raises:
        ModelError: it has other inputs than features and words, or layers that no step can be made of.
    """
    if not isinstance(model, FUNCTIONAL):
        raise ModelError(f"{type(model).__name__} shows no graph: build it with Keras' functional API")
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 2:
        raise ModelError(f"it has {len(shapes)} inputs, {shapes}; expected two, the photo's features and the words")
    graph = None if isinstance(model, Exported) else modern(model) if isinstance(model, tf_keras.Model) else model
    words = _words_by_numbers(model) if graph is None else _words_by_graph(graph)
    if len(words) != 1:
        raise ModelError(f"none of its inputs {shapes} goes into an Embedding: which are the words?")
    found = Captioner(model, graph, 1 - words[0], words[0], softmax=False)
    if graph and not found.recurrent:
        raise ModelError("it has no LSTM or GRU over the words")
    said = ops.convert_to_numpy(found._call(np.ones((2, *found.features)), np.ones((2, found.longest or 3)), model))
    return replace(found, softmax=bool((said >= 0).all() and np.allclose(said.sum(-1), 1, atol=1e-3)))


def _words_by_graph(model: keras.Model) -> list[int]:
    """Which inputs go into an Embedding."""
    two_way = [layer.name for layer in model.layers if isinstance(layer, layers.Bidirectional)]
    if two_way:
        raise ModelError(f"{two_way[0]} is bidirectional: it reads words that are not yet said, so it cannot say them")
    embeddings = [layer for layer in model.layers if isinstance(layer, layers.Embedding)]
    read = {id(node.input_tensors[0]) for layer in embeddings for node in layer._inbound_nodes}
    return [at for at, tensor in enumerate(model.inputs) if id(tensor) in read]


def _words_by_numbers(model: Exported) -> list[int]:
    """Which inputs are tokens: a fraction more changes nothing."""
    ones = [np.ones([2, *(size or 3 for size in spec.shape[1:])]) for spec in model.inputs]

    def ignores(at: int) -> bool:
        more = [x + 0.3 * (i == at) for i, x in enumerate(ones)]
        return np.array_equal(ops.convert_to_numpy(model(ones)), ops.convert_to_numpy(model(more)))

    return [at for at in range(len(ones)) if ignores(at)]


class _Look:
    """In the place of a recurrent layer: what it has read before the first word becomes its first state."""

    def __init__(self, layer, states):
        self.layer, self.states = layer, states

    def __call__(self, sequence, initial_state=None, **_):
        states = _listed(initial_state) or [ops.zeros((ops.shape(sequence)[0], size)) for size in _sizes(self.layer)]
        outputs = []
        for at in range(sequence.shape[1] - 1):  # a photo injected as the first word, or nothing
            output, states = self.layer.cell(sequence[:, at], states)
            outputs.append(output)
        self.states[self.layer.name] = states
        last, after = self.layer.cell(sequence[:, -1], states)
        return _as_layer(self.layer, [*outputs, last], after)


class _Step:
    """In the place of a recurrent layer: its cell, with the state that it was given."""

    def __init__(self, layer, given, after):
        self.layer, self.given, self.after = layer, given, after

    def __call__(self, sequence, initial_state=None, **_):
        output, after = self.layer.cell(sequence[:, -1], self.given[self.layer.name])
        self.after[self.layer.name] = after
        return _as_layer(self.layer, [output], after)


def _as_layer(layer, outputs, states):
    said = ops.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]
    return (said, *states) if layer.return_state else said


def _listed(states) -> list:
    return list(states) if isinstance(states, list | tuple) else [] if states is None else [states]


def _sizes(layer) -> list[int]:
    size = layer.cell.state_size
    return list(size) if isinstance(size, list | tuple) else [size]
