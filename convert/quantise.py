"""A bundle with smaller weights, and what that costs: float16 storage, or int8 arithmetic.

int8: the encoder statically, scales of activations from calibration photos, of weights for each channel; the decoder
dynamically (Jacob et al. 2018, arXiv:1712.05877). Weights take 7 bits (`reduce_range`): on x86-64 without VNNI the sums
of 8-bit products saturate, and captions would depend on the processor.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from convert.export import STORED_IN_HALF, write_bundle
from function.bundles import load_bundle
from function.captioner import Captioner

REPEATS = 5
GRAPHS = ("encoder.onnx", "decoder.onnx")


@dataclass(frozen=True)
class Loss:
    """What a smaller bundle costs and brings, over the same photos on one thread."""

    photos: int
    megabytes: tuple[float, float]  # before, after
    encoder_milliseconds: tuple[float, float]  # median, a photo
    search_milliseconds: tuple[float, float]  # encoder included
    other_captions: int
    log_probability: float  # mean absolute difference of the best captions' where both say the same; 0 without any

    def __str__(self) -> str:
        def change(name: str, pair: tuple[float, float], unit: str) -> str:
            return f"{name} {pair[0]:.1f} -> {pair[1]:.1f} {unit} ({pair[1] / pair[0]:.2f}x)"

        return (
            f"{change('size', self.megabytes, 'MB')}, {change('encoder', self.encoder_milliseconds, 'ms')}, "
            f"{change('caption', self.search_milliseconds, 'ms')}; of {self.photos} captions {self.other_captions} "
            f"differ, log-probabilities of the others by {self.log_probability:.1e}"
        )


def store_in_half(source: Path, out: Path, name: str | None = None) -> None:
    """The bundle with its weights rounded to float16, computed with in float32 as before."""

    def smaller(graph: onnx.ModelProto) -> onnx.ModelProto:
        whole = []
        for weight in graph.graph.initializer:
            array, held = numpy_helper.to_array(weight), weight.name
            if weight.data_type != TensorProto.FLOAT or array.size < STORED_IN_HALF:
                continue
            weight.CopyFrom(numpy_helper.from_array(np.clip(array, -65504, 65504).astype(np.float16), f"{held}:half"))
            whole.append(helper.make_node("Cast", [f"{held}:half"], [held], f"{held}:cast", to=TensorProto.FLOAT))
        nodes = [*whole, *graph.graph.node]
        del graph.graph.node[:]
        graph.graph.node.extend(nodes)
        return graph

    _rewritten(source, out, {file: smaller(optimised(onnx.load(source / file))) for file in GRAPHS}, "float16", name)


def quantise(
    source: Path,
    out: Path,
    photos: Iterable[np.ndarray],
    parts: Collection[str] = GRAPHS,
    name: str | None = None,
) -> None:
    """The bundle with `parts` in int8; `photos`, uint8 (H, W, 3) of its size, show how large activations become."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = ({"image": pixels[None]} for pixels in photos)

        def get_next(self):
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, smaller = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        graphs = {}
        for file in parts:
            onnx.save(optimised(onnx.load(source / file)), plain)
            if file == "encoder.onnx":
                quant_pre_process(plain, plain, skip_optimization=True, skip_symbolic_shape=True)
                quantize_static(
                    plain,
                    smaller,
                    Photos(),
                    per_channel=True,
                    reduce_range=True,
                    weight_type=QuantType.QInt8,
                    activation_type=QuantType.QUInt8,
                    op_types_to_quantize=["Conv", "Add", "AveragePool", "GlobalAveragePool"],
                )
            else:
                quantize_dynamic(plain, smaller, reduce_range=True, per_channel=True, weight_type=QuantType.QInt8)
            graphs[file] = onnx.load(smaller)
    _rewritten(source, out, graphs, f"int8: {', '.join(parts)}", name)


def optimised(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as onnxruntime makes it while it loads: constants folded, what does nothing left out.

    It stops at level basic, whose operators are ONNX's own: any runtime reads them, and the quantiser too. What the
    levels above fuse takes onnxruntime no longer than reading it would.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "graph.onnx")
        ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def measure(before: Path, after: Path, photos: list[np.ndarray]) -> Loss:
    """Both bundles over the same photos, one after the other for each, so that a busy moment disturbs both."""
    captioners = [Captioner(load_bundle(folder, threads=1)) for folder in (before, after)]
    encoders: list[list[float]] = [[], []]
    searches: list[list[float]] = [[], []]
    best: list[list] = [[], []]
    for repeat in range(REPEATS):
        for pixels in photos:
            for side, captioner in enumerate(captioners):
                began = time.perf_counter()
                captioner.bundle.encoder.run(None, {"image": pixels[None]})
                encoded = time.perf_counter()
                (captions,) = captioner.caption(pixels[None])
                encoders[side].append(encoded - began)
                searches[side].append(time.perf_counter() - encoded)
                if not repeat:
                    best[side].append(captions[0])
    same = [(a, b) for a, b in zip(*best, strict=True) if a.tokens == b.tokens]
    return Loss(
        photos=len(photos),
        megabytes=(_megabytes(before), _megabytes(after)),
        encoder_milliseconds=_medians(encoders),
        search_milliseconds=_medians(searches),
        other_captions=len(photos) - len(same),
        log_probability=statistics.fmean(abs(a.log_probability - b.log_probability) for a, b in same) if same else 0.0,
    )


def _rewritten(source: Path, out: Path, graphs: dict[str, onnx.ModelProto], how: str, name: str | None) -> None:
    """The bundle with some other graphs; what was measured of the old ones, its metrics and confidence, is left out."""
    document = json.loads((source / "bundle.json").read_text("utf-8"))
    vocabulary = json.loads((source / "vocabulary.json").read_text("utf-8"))
    kept = {key: value for key, value in document.items() if key not in ("format", "name", "files", "metrics")}
    kept["provenance"] = {**kept.get("provenance", {}), "made smaller": how}
    graphs = {file: graphs.get(file) or onnx.load(source / file) for file in GRAPHS}
    write_bundle(out, name or document["name"], graphs, vocabulary, kept | {"metrics": {}})


def _megabytes(bundle: Path) -> float:
    return sum((bundle / name).stat().st_size for name in GRAPHS) / 1e6


def _medians(times: list[list[float]]) -> tuple[float, float]:
    before, after = (1000 * statistics.median(side) for side in times)
    return before, after
