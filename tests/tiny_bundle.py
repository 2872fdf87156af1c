"""A bundle of a few kilobytes that keeps the whole contract, with random weights: what tests caption with.

encoder   image -> context_colour (N, 3), the mean colour, and state_h (N, HIDDEN)
decoder   step:   token, context_colour, state_h -> log_probs, next_state_h, attention
          prefix: tokens, context_colour -> log_probs
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY = ["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "'s", "ball", "on", "red", "grass", "runs"]
PAD, START, END, UNKNOWN = range(4)
SIZE = (32, 24)  # (width, height)
HIDDEN = 8


def make_tiny_bundle(folder: Path, *, decoder: str = "step", seed: int = 0, **settings: Any) -> Path:
    """Write a bundle into `folder`, made if need be, and return it; `settings` replace bundle.json's."""
    if decoder == "prefix":
        return write_bundle(folder, prefix_encoder(), prefix_decoder(seed), decoder=decoder, **settings)
    return write_bundle(folder, encoder(seed), step_decoder(seed), decoder=decoder, **settings)


def write_bundle(
    folder: Path,
    encoder: onnx.ModelProto,
    decoder: onnx.ModelProto,
    /,
    vocabulary: Sequence[str] = VOCABULARY,
    **settings: Any,
) -> Path:
    """Write any models as a bundle, with right hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "encoder.onnx": encoder.SerializeToString(),
        "decoder.onnx": decoder.SerializeToString(),
        "vocabulary.json": json.dumps(list(vocabulary)).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    document = {
        "format": 1,
        "name": "tiny",
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "image": {"width": SIZE[0], "height": SIZE[1], "resize": "stretch"},
        "decoder": "step",
        "tokens": {
            "pad": PAD,
            "start": START,
            "end": END,
            "unknown": UNKNOWN,
            "never": [PAD, START, UNKNOWN],
        },
        "longest_caption": 6,
        "decoding": {"beams": 3, "length_exponent": 1.0},
        "sentence": {"glue": ["'s"]},
        "provenance": {"made_by": "tests/tiny_bundle.py"},
        "metrics": {},
        "licence": "MIT",
    }
    (folder / "bundle.json").write_text(json.dumps(document | settings, indent=2))
    return folder


def encoder(seed: int = 0) -> onnx.ModelProto:
    """image uint8 (N, H, W, 3) -> context_colour float32 (N, 3), state_h float32 (N, HIDDEN)."""
    width, height = SIZE
    return _model(
        [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "height_and_width"], ["mean"], keepdims=0),
            helper.make_node("Div", ["mean", "white"], ["context_colour"]),
            helper.make_node("Gemm", ["context_colour", "colour_to_state"], ["state_h"]),
        ],
        inputs=[("image", TensorProto.UINT8, ["N", height, width, 3])],
        outputs=[
            ("context_colour", TensorProto.FLOAT, ["N", 3]),
            ("state_h", TensorProto.FLOAT, ["N", HIDDEN]),
        ],
        weights={
            "height_and_width": np.array([1, 2], dtype=np.int64),
            "white": np.array(255, dtype=np.float32),
            "colour_to_state": _random(seed, 3, HIDDEN),
        },
    )


def step_decoder(seed: int = 0, regions: int = 4) -> onnx.ModelProto:
    """token, context_colour, state_h -> log_probs, next_state_h, attention."""
    return _model(
        [
            helper.make_node("Gather", ["embedding", "token"], ["embedded"]),
            helper.make_node("Concat", ["embedded", "context_colour", "state_h"], ["joined"], axis=1),
            helper.make_node("Gemm", ["joined", "recurrent"], ["summed"]),
            helper.make_node("Tanh", ["summed"], ["next_state_h"]),
            helper.make_node("Gather", ["ending", "token"], ["towards_the_end"]),
            helper.make_node("Gemm", ["next_state_h", "output", "towards_the_end"], ["logits"]),
            helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=1),
            helper.make_node("Gemm", ["next_state_h", "look"], ["relevance"]),
            helper.make_node("Softmax", ["relevance"], ["attention"], axis=1),
        ],
        inputs=[
            ("token", TensorProto.INT64, ["B"]),
            ("context_colour", TensorProto.FLOAT, ["B", 3]),
            ("state_h", TensorProto.FLOAT, ["B", HIDDEN]),
        ],
        outputs=[
            ("log_probs", TensorProto.FLOAT, ["B", len(VOCABULARY)]),
            ("next_state_h", TensorProto.FLOAT, ["B", HIDDEN]),
            ("attention", TensorProto.FLOAT, ["B", regions]),
        ],
        weights={
            "embedding": _random(seed + 1, len(VOCABULARY), 4),
            "recurrent": _random(seed + 2, 4 + 3 + HIDDEN, HIDDEN),
            "output": _random(seed + 3, HIDDEN, len(VOCABULARY)) / 2,
            "look": _random(seed + 4, HIDDEN, regions),
            "ending": _ending(),
        },
    )


def prefix_encoder() -> onnx.ModelProto:
    """The encoder without its state."""
    model = encoder()
    del model.graph.node[-1], model.graph.output[-1], model.graph.initializer[-1]
    return model


def prefix_decoder(seed: int = 0, width: int | str = "L") -> onnx.ModelProto:
    """tokens (B, `width`) left-padded, context_colour -> log_probs. PAD is embedded as zeros."""
    embedding = _random(seed + 1, len(VOCABULARY), HIDDEN)
    embedding[PAD] = 0
    return _model(
        [
            helper.make_node("Gather", ["embedding", "tokens"], ["embedded"]),
            helper.make_node("ReduceSum", ["embedded", "along_the_caption"], ["summed"], keepdims=0),
            helper.make_node("Tanh", ["summed"], ["state"]),
            helper.make_node("Concat", ["state", "context_colour"], ["joined"], axis=1),
            helper.make_node("Gather", ["ending", "tokens"], ["endings"]),
            helper.make_node("ReduceSum", ["endings", "along_the_caption"], ["towards_the_end"], keepdims=0),
            helper.make_node("Gemm", ["joined", "output", "towards_the_end"], ["logits"]),
            helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=1),
        ],
        inputs=[("tokens", TensorProto.INT64, ["B", width]), ("context_colour", TensorProto.FLOAT, ["B", 3])],
        outputs=[("log_probs", TensorProto.FLOAT, ["B", len(VOCABULARY)])],
        weights={
            "embedding": embedding,
            "along_the_caption": np.array([1], dtype=np.int64),
            "output": _random(seed + 2, HIDDEN + 3, len(VOCABULARY)) / 2,
            "ending": _ending(),
        },
    )


def _ending() -> np.ndarray:
    """What each token (first axis) adds to the logit of the end token: no caption is empty, and most end."""
    ending = np.zeros((len(VOCABULARY), len(VOCABULARY)), dtype=np.float32)
    ending[:, END] = 1.5
    ending[PAD, END], ending[START, END] = 0, -4
    return ending


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    weights: dict[str, np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
