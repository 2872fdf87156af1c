"""Ways to drive the decoder to the same greedy captions: steps from Python, with I/O binding, and a graph with a Loop.

ONNX's Loop runs the whole caption inside onnxruntime. It could not end a beam search as function/captioner.py does,
which asks whether a sentence is flawed; so it is shown with greedy search, where there is the least beside the decoder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from function.bundles import Bundle

Way = Callable[[dict[str, Any]], list[int]]  # what the encoder says of one photo -> the tokens of its caption


def ways(bundle: Bundle, decoder: Path) -> dict[str, Way]:
    """Name -> way, each with the decoder of `bundle`, whose file is `decoder`. A step decoder only."""
    start = np.array([bundle.start])
    outputs = ["log_probs", *(f"next_{state}" for state in bundle.states)]
    longest = bundle.longest_caption + 1
    whole = session(_loop(onnx.load(decoder), bundle))

    def chosen(log_probs: NDArray[np.float32]) -> NDArray[np.int64]:
        allowed = log_probs.copy()
        allowed[:, bundle.never] = -np.inf
        tokens: NDArray[np.int64] = allowed.argmax(axis=1)
        return tokens

    def steps(encoded: dict[str, Any]) -> list[int]:
        feeds, said = {**encoded, "token": start}, []
        for _ in range(longest):
            log_probs, *states = bundle.decoder.run(outputs, feeds)
            feeds.update(zip(bundle.states, states, strict=True))
            feeds["token"] = chosen(log_probs)
            said.append(int(feeds["token"][0]))
            if said[-1] == bundle.end:
                break
        return said

    def bound(encoded: dict[str, Any]) -> list[int]:
        held = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in encoded.items()}
        binding, token, said = bundle.decoder.io_binding(), start, []
        for _ in range(longest):
            binding.bind_cpu_input("token", token)
            for name, value in held.items():
                binding.bind_ortvalue_input(name, value)
            binding.clear_binding_outputs()
            for name in outputs:
                binding.bind_output(name)
            bundle.decoder.run_with_iobinding(binding)
            log_probs, *states = binding.get_outputs()
            held.update(zip(bundle.states, states, strict=True))
            token = chosen(log_probs.numpy())
            said.append(int(token[0]))
            if said[-1] == bundle.end:
                break
        return said

    def loop(encoded: dict[str, Any]) -> list[int]:
        return [int(token) for token in whole.run(["tokens"], {**encoded, "token": start})[0][:, 0]]

    return {"steps from Python": steps, "steps with I/O binding": bound, "one graph with a Loop": loop}


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A model at work on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _loop(decoder: onnx.ModelProto, bundle: Bundle) -> onnx.ModelProto:
    """token, contexts, states -> tokens (L, B): the decoder and the choice of the likeliest word, until all ended."""
    inputs = {tensor.name: tensor for tensor in decoder.graph.input}
    carried = ["token", *bundle.states]
    nodes = []
    for node in decoder.graph.node:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.input[:] = [f"last_{name}" if name in carried else name for name in node.input]
        nodes.append(renamed)
    nodes += [
        helper.make_node("Add", ["log_probs", "never"], ["allowed"]),
        helper.make_node("ArgMax", ["allowed"], ["next_token"], axis=1, keepdims=0),
        helper.make_node("Identity", ["next_token"], ["said"]),
        helper.make_node("Equal", ["next_token", "end"], ["ended"]),
        helper.make_node("Not", ["ended"], ["live"]),
        helper.make_node("Cast", ["live"], ["count"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["count"], ["any"], keepdims=0),
        helper.make_node("Cast", ["any"], ["more"], to=TensorProto.BOOL),
    ]
    never = np.zeros(len(bundle.vocabulary), np.float32)
    never[bundle.never] = -np.inf

    def value(name: str, like: str) -> onnx.ValueInfoProto:
        tensor = onnx.ValueInfoProto()
        tensor.CopyFrom(inputs[like])
        tensor.name = name
        return tensor

    body = helper.make_graph(
        nodes,
        "word",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            *(value(f"last_{name}", name) for name in carried),
        ],
        [
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            *(value(f"next_{name}", name) for name in carried),
            value("said", "token"),
        ],
        [
            *decoder.graph.initializer,
            numpy_helper.from_array(never, "never"),
            numpy_helper.from_array(np.array(bundle.end), "end"),
        ],
    )
    outputs = [f"final_{name}" for name in carried]
    caption = helper.make_graph(
        [helper.make_node("Loop", ["longest", "true", *carried], [*outputs, "tokens"], body=body)],
        "caption",
        list(inputs.values()),
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["L", "B"])],
        [
            numpy_helper.from_array(np.array(bundle.longest_caption + 1), "longest"),
            numpy_helper.from_array(np.array(True), "true"),
        ],
    )
    return helper.make_model(caption, opset_imports=decoder.opset_import, ir_version=decoder.ir_version)
