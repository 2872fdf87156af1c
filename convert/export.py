"""From a run to a bundle: two ONNX graphs, the words and what the runtime must know.

Weights are rounded to float16 before anything else, so that the graphs, which store them so, and the Keras model they
are compared with hold the same numbers. Each carries its Keras name: `weights.read_bundle` takes them out again.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import ops
from onnx import TensorProto, helper, numpy_helper

from convert import encoders
from convert.data import END, PAD, START, UNKNOWN
from convert.decoder import DecoderConfig, build_decoder
from convert.encoders import Encoder
from convert.train import load_best, put_weights, weights_of
from convert.weights import onnx_layout
from function.bundles import load_bundle

OPSET = 18
STORED_IN_HALF = 256  # numbers; smaller arrays stay float32
STATES = ["state_h", "state_c"]
# Words that PTB splits off, written without a space before them.
GLUE = ["'s", "n't", "'re", "'ll", "'d", "'m", "'ve", "'"]
# Words that end no sentence: each ends fewer than 7 in 1,000 of its uses in Flickr8k's training captions ("on", of
# onlookers who look on, 21).
NEVER_LAST = (
    "a an the and or but is are has his their its with of in on at for from to into onto near next while as that "
    "who which through between beside against across along wearing holding"
)
LICENCE = (
    "Trained on Flickr8k (Hodosh, Young and Hockenmaier 2013), which is for non-commercial research and education. "
    "ImageNet weights of the encoder: Apache 2.0."
)


@dataclass(frozen=True)
class Trained:
    """A run's networks with their averaged weights, as float16 would hold them."""

    encoder: Encoder
    decoder: keras.Model
    vocabulary: list[str]
    run: dict  # run.json


def load_run(folder: Path) -> Trained:
    """Build a run's networks with the weights of its best epoch.

    Raises:
        FileNotFoundError: the run has no best epoch yet.
    """
    run = json.loads((folder / "run.json").read_text())
    encoder = encoders.build(run["settings"]["encoder"])
    decoder = build_decoder(DecoderConfig(**run["decoder"]))
    weights = load_best(folder)
    put_weights(decoder, {k: v for k, v in weights.items() if k.startswith("decoder")})
    for part in (encoder.trunk, encoder.tail):
        put_weights(part, {k: v for k, v in weights.items() if not k.startswith("decoder")}, partial=True)
    for model in (encoder.trunk, encoder.tail, decoder):
        for variable in model.trainable_variables:
            variable.assign(ops.convert_to_numpy(variable).astype("float16").astype("float32"))
    return Trained(encoder, decoder, run["vocabulary"], run)


def export(folder: Path, out: Path, name: str, beams: int = 3, length_exponent: float = 1.0) -> Trained:
    """Write the bundle of a run to `out`, whole or not at all.

    Returns:
        what was exported, for the comparison with the bundle.
    """
    trained = load_run(folder)
    encoder, decoder = trained.encoder, trained.decoder
    vision, (width, height) = encoder.model(), encoder.size

    names = looked_at(decoder)

    def look(image):
        return dict(zip(names, decoder.look(vision(tf.cast(image, tf.float32))), strict=True))

    def step(token, *looked):
        log_probs, attention, h, c = decoder.step(token, *looked)
        seen = {"attention": attention} if decoder.attentive else {}
        return {"log_probs": log_probs, "next_state_h": h, "next_state_c": c, **seen}

    image = tf.TensorSpec((None, height, width, 3), tf.uint8, "image")
    token = tf.TensorSpec((None,), tf.int64, "token")
    shapes = [tensor.shape[1:] for tensor in decoder.look(np.zeros((1, *vision.output_shape[1:]), "float32"))]
    inputs = [tf.TensorSpec((None, *shape), tf.float32, n) for n, shape in zip(names, shapes, strict=True)]
    weights = {**weights_of(vision), **weights_of(decoder)}
    graphs = {
        "encoder.onnx": graph_of(look, [image], weights, "N"),
        "decoder.onnx": graph_of(step, [token, *inputs], weights, "B"),
    }

    document = {
        "image": {"width": width, "height": height, "resize": "stretch"},
        "decoder": "step",
        "tokens": {"pad": PAD, "start": START, "end": END, "unknown": UNKNOWN, "never": [PAD, START, UNKNOWN]},
        "longest_caption": trained.run["settings"]["longest"],
        "decoding": {"beams": beams, "length_exponent": length_exponent},
        "sentence": {"glue": GLUE, "never_last": NEVER_LAST.split()},
        "provenance": {
            "encoder": encoder.name,
            "decoder": trained.run["decoder"],
            "steps": [step | {"data": Path(step["data"]).name} for step in trained.run["steps"]],
            "versions": trained.run["versions"]
            | {package: version(package) for package in ("tensorflow-cpu", "tf2onnx", "onnx")},
        },
        "metrics": {},
        "licence": LICENCE,
    }
    write_bundle(out, name, graphs, trained.vocabulary, document)
    return trained


def write_bundle(
    out: Path,
    name: str,
    graphs: dict[str, onnx.ModelProto],
    vocabulary: list[str],
    document: dict,
) -> None:
    """Write a bundle to `out`, whole or not at all: one that the runtime cannot load is not written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as partial:
        partial = Path(partial)
        for file, graph in graphs.items():
            onnx.save(graph, partial / file)
        (partial / "vocabulary.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
        files = {file: sha256(partial / file) for file in [*graphs, "vocabulary.json"]}
        bundle = {"format": 1, "name": name, "files": files, **document}
        (partial / "bundle.json").write_text(json.dumps(bundle, indent=1, ensure_ascii=False) + "\n", "utf-8")
        load_bundle(partial)
        move_files(partial, out)


def move_files(folder: Path, out: Path) -> None:
    """Move what is in a folder to another, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        shutil.move(file, out / file.name)


def looked_at(decoder: keras.Model) -> list[str]:
    """The names, in a bundle, of what a decoder's `look` says."""
    return [f"context_{name}" for name in decoder.contexts] + STATES


def sha256(path: Path) -> str:
    """The hash that bundle.json holds of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def graph_of(
    function: Callable, signature: list, weights: dict[str, np.ndarray], batch: str, opset: int = OPSET
) -> onnx.ModelProto:
    """A function as an ONNX graph with named, half-precision weights; its first axes are called `batch`."""
    model, _ = tf2onnx.convert.from_function(tf.function(function), signature, opset=opset)
    graph = model.graph
    outputs = list(tf.function(function).get_concrete_function(*signature).structured_outputs)
    for value, name in zip(graph.output, sorted(outputs), strict=True):
        _rename(graph, value.name, name)
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = batch
    _name_weights(graph, weights)
    _store_in_half(graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if n == old else n for n in node.input]
        node.output[:] = [new if n == old else n for n in node.output]
    for value in [*graph.initializer, *graph.input, *graph.output]:
        if value.name == old:
            value.name = new


def _name_weights(graph: onnx.GraphProto, weights: dict[str, np.ndarray]) -> None:
    """Give each initializer that is a weight the weight's name, found by its numbers."""
    names: dict[bytes, list[str]] = {}
    for path, array in weights.items():
        names.setdefault(onnx_layout(array, path).tobytes(), []).append(path)
    for initializer in list(graph.initializer):
        found = names.get(numpy_helper.to_array(initializer).tobytes())
        if found:
            _rename(graph, initializer.name, found.pop(0))


def _store_in_half(graph: onnx.GraphProto) -> None:
    """Store large float32 weights once and as float16; onnxruntime folds what makes them whole again as it loads.

    w (float16) -> Cast -> w:float32          and, where another weight is w's transpose (tied words):
    w:float32 -> Transpose -> the other
    """
    whole: list[onnx.NodeProto] = []
    stored: dict[bytes, str] = {}
    for initializer in list(graph.initializer):
        array, name = numpy_helper.to_array(initializer), initializer.name
        if initializer.data_type != TensorProto.FLOAT or array.size < STORED_IN_HALF:
            continue
        half = array.astype(np.float16)
        if not np.array_equal(half, array):  # not a weight as it was rounded: a batch norm was folded into it
            continue
        twin = stored.get(array.T.tobytes()) if array.ndim == 2 else None
        if twin:
            graph.initializer.remove(initializer)
            whole.append(helper.make_node("Transpose", [f"{twin}:float32"], [name], f"{name}:transpose", perm=[1, 0]))
            continue
        stored[array.tobytes()] = name
        initializer.CopyFrom(numpy_helper.from_array(half, name))
        for node in graph.node:
            node.input[:] = [f"{name}:float32" if n == name else n for n in node.input]
        whole.append(helper.make_node("Cast", [name], [f"{name}:float32"], f"{name}:cast", to=TensorProto.FLOAT))
    nodes = [*whole, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
