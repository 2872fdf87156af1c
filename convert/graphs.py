"""What an ONNX graph is made of: its shapes, operators, weights and multiply-adds."""

import math
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

KINDS = {name: np.dtype(helper.tensor_dtype_to_np_dtype(kind)) for name, kind in TensorProto.DataType.items() if kind}
CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}  # -> which input is the weight
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "MatMulInteger")


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in model.graph.node)


def parameters(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Type -> how many numbers of it the weights are, and their bytes."""
    found: dict[str, tuple[int, int]] = {}
    for weight in model.graph.initializer:
        name = TensorProto.DataType.Name(weight.data_type).lower()
        count, size = found.get(name, (0, 0))
        numbers = math.prod(weight.dims)
        found[name] = count + numbers, size + numbers * KINDS[name.upper()].itemsize
    return found


def multiply_adds(model: onnx.ModelProto) -> int:
    """Of all convolutions and matrix products of one run with a batch of one; recurrent operators are not counted."""
    shapes = _shapes(model)
    total = 0
    for node in model.graph.node:
        if node.op_type in CONVOLUTIONS:  # each output is a sum over the weight's inputs and window
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[CONVOLUTIONS[node.op_type]]][1:])
        elif node.op_type in PRODUCTS:
            turned = next((a.i for a in node.attribute if a.name == "transA"), 0)
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if turned else -1]
    return total


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, from a run on zeros that shows them all."""
    showing = onnx.ModelProto()
    showing.CopyFrom(model)
    known = {value.name for value in showing.graph.output}
    for node in model.graph.node:
        showing.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in node.output if name and name not in known
        )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(showing.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {
        tensor.name: np.zeros(
            [axis if isinstance(axis, int) else 1 for axis in tensor.shape], KINDS[_kind(tensor.type)]
        )
        for tensor in session.get_inputs()
    }
    names = [tensor.name for tensor in session.get_outputs()]
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    shapes |= {name: array.shape for name, array in feeds.items()}
    return shapes | {name: np.shape(value) for name, value in zip(names, session.run(names, feeds), strict=True)}


def _kind(said: str) -> str:
    """onnxruntime's tensor(float) -> ONNX's FLOAT."""
    return said.removeprefix("tensor(").removesuffix(")").upper()
