"""A Keras model from a file that somebody else wrote, years ago perhaps, as it was when it was trained.

Keras 2 and 3 read some models differently: 2 heeds an embedding's mask in a recurrent layer that is given its first
state, and where words are concatenated with a photo that has none; 3 does not. So what was saved by Keras 2 is run by
Keras 2 (`tf_keras`). Only its graph is then built again in Keras 3 (`modern`), to be taken apart.
"""

import json
import re
import zipfile
from pathlib import Path

import h5py
import keras
import tensorflow as tf
import tf_keras
from keras import layers, ops

from convert.tokenizers import LFS_POINTER

CODE = re.compile(rb'"class_name": ?"Lambda"')
# Settings that Keras 3 does not know, or that only training needs.
GONE = re.compile(r"time_major|batch_input_shape|implementation|input_length|.+_(initializer|regularizer|constraint)")
OLD = ("0", "1", "2")  # what Keras' versions began with, before 3


class ModelError(ValueError):
    """This model cannot be converted; the message says why, and what to do."""


class Exported:
    """What is left of a model in a SavedModel that has no layers: a function of its inputs, in their order."""

    def __init__(self, path: Path):
        self.loaded = tf.saved_model.load(path)
        if "serving_default" not in self.loaded.signatures:
            raise ModelError(f"{path} has no signature called serving_default")
        function = self.loaded.signatures["serving_default"]
        self.name = path.stem
        self.inputs = list(function.structured_input_signature[1].values())
        self.outputs = list(function.structured_outputs.values())
        self.function = function

    def __call__(self, inputs, training: bool = False):
        inputs = inputs if isinstance(inputs, list) else [inputs]
        named = {spec.name: ops.cast(x, spec.dtype) for spec, x in zip(self.inputs, inputs, strict=True)}
        return next(iter(self.function(**named).values()))


Model = keras.Model | tf_keras.Model | Exported


def load_model(path: Path, weights: Path | None = None) -> Model:
    """A model from `.keras`, `.h5`, a SavedModel, or a JSON architecture with `weights` beside it, of Keras 2 or 3.

    Raises:
        ModelError: the file is not one of these, is damaged, or needs code that is not in it.
    """
    for file in filter(None, (path, weights)):
        if not file.exists():
            raise ModelError(f"{file} is not there")
        if file.is_file():
            with file.open("rb") as opened:
                if opened.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise ModelError(f"{file} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    try:
        if path.is_dir():
            return _saved_model(path)
        if path.suffix == ".json":
            return _architecture(path, weights)
        return _file(path)
    except ModelError:
        raise
    except Exception as error:  # Keras, h5py and zipfile each have their own
        said = " ".join(str(error).split())
        if found := re.search(r"(?:Could not locate class|Unknown layer:) '(\w+)'", said):
            raise ModelError(f"{path} needs {found[1]}, a layer of its own whose code is not in it") from error
        raise ModelError(f"{path} cannot be read as a Keras model ({type(error).__name__}): {said[:300]}") from error


def _saved_model(path: Path) -> Model:
    if not (path / "saved_model.pb").exists():
        raise ModelError(f"{path} is a folder and no SavedModel: a .keras, .h5 or .json file is expected")
    layered = path / "keras_metadata.pb"  # Keras 2 writes it; what `export` of Keras 3 writes has no layers
    if not layered.exists():
        return Exported(path)
    _refuse_code(path, layered.read_bytes())
    return tf_keras.models.load_model(path, compile=False)


def _architecture(path: Path, weights: Path | None) -> Model:
    if weights is None:
        raise ModelError(f"{path} is an architecture without weights: say --weights too")
    text = path.read_text()
    _refuse_code(path, text.encode())
    old = str(json.loads(text).get("keras_version", "3")).startswith(OLD)
    model = (tf_keras if old else keras).models.model_from_json(text, **({} if old else {"custom_objects": OPERATIONS}))
    model.load_weights(weights)
    return model


def _file(path: Path) -> Model:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
            _refuse_code(path, archive.read("config.json"))
    else:
        with h5py.File(path) as file:
            version = _text(file.attrs.get("keras_version", "1"))
            if "model_config" not in file.attrs:
                raise ModelError(f"{path} holds weights alone: name the architecture (.json), and these as --weights")
            _refuse_code(path, _text(file.attrs["model_config"]).encode())
    if version.startswith(OLD):
        return tf_keras.models.load_model(path, compile=False)
    return keras.models.load_model(path, custom_objects=OPERATIONS, compile=False)


def _refuse_code(path: Path, config: bytes) -> None:
    if CODE.search(config):
        raise ModelError(f"{path} holds a Lambda layer, which is code, and is not run: write it as a layer")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


# Keras 3.15 does not find its own operations when it reads an .h5.
OPERATIONS = {
    name: kind
    for name, kind in vars(keras.src.ops.numpy).items()
    if isinstance(kind, type) and issubclass(kind, keras.Operation) and not hasattr(keras.layers, name)
}


def modern(model: tf_keras.Model) -> keras.Model:
    """The graph and the weights of a functional model of Keras 2 in Keras 3; masks may be heeded otherwise.

    Raises:
        ModelError: it has a layer that Keras 3 does not have.
    """
    made: dict[str, keras.Layer] = {}
    tensors = {id(old): keras.Input(old.shape[1:], dtype=old.dtype.name) for old in model.inputs}
    nodes = [node for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True) for node in nodes]
    for node in nodes:
        if node.is_input:
            continue
        layer = made.setdefault(node.layer.name, _modern(node.layer))
        arguments, named = tf.nest.map_structure(lambda x: tensors.get(id(x), x), (node.call_args, node.call_kwargs))
        if isinstance(node.layer, tf_keras.layers.RNN) and isinstance(arguments[0], list):  # with its first state
            (sequence, *named["initial_state"]), *arguments = arguments
            arguments = [sequence, *arguments]
        try:
            after = layer(*arguments, **{name: x for name, x in named.items() if x is not None})
        except Exception as error:
            raise ModelError(f"{node.layer.name} cannot be built in Keras 3: {' '.join(str(error).split())}") from error
        for old, new in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(after), strict=True):
            tensors[id(old)] = new
    whole = keras.Model([tensors[id(x)] for x in model.inputs], [tensors[id(x)] for x in model.outputs])
    for layer in model.layers:
        if layer.weights:
            made[layer.name].set_weights(layer.get_weights())
    return whole


def _modern(layer: tf_keras.layers.Layer) -> keras.Layer:
    """The layer of the same class in Keras 3, without the settings that went with Keras 2."""
    kind = getattr(layers, type(layer).__name__, None)
    if kind is None:
        raise ModelError(f"{layer.name} is a {type(layer).__name__}, for which there is no layer in Keras 3")
    if isinstance(layer, tf_keras.layers.Bidirectional):
        raise ModelError(f"{layer.name} is bidirectional: it reads words that are not yet said, so it cannot say them")
    if isinstance(layer, tf_keras.layers.Wrapper):
        return kind(_modern(layer.layer), name=layer.name)
    config = layer.get_config() | {"name": f"{layer.name}_of_2"}  # Keras 3 calls its own operations by layers' names
    if config.get("time_major"):
        raise ModelError(f"{layer.name} has the time first (time_major): train it with the batch first")
    return kind.from_config({name: value for name, value in config.items() if not GONE.fullmatch(name)})
