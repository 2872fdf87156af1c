"""How long each stage of a photo takes in this service, and what the processor could do: on one core, as JSON."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from convert.graphs import multiply_adds
from function.app import answer, deployed_service
from function.captioner import Captioner, load_captioner
from function.events import ObjectName
from function.objects import Service, settle
from function.photos import read_photo, square
from infra.bench.ways import Way, session, ways
from infra.emulator import ROOT
from infra.local import keep_local, local_aws
from infra.template import Stack, create_stack

BUNDLE = ROOT / "function" / "bundle"
SIDE = 1024  # of the matrices whose product shows what the processor can do
LARGE = (4000, 3000)  # 12 megapixels
SMALL = (640, 480)  # 0.3
AFAR = 0.02  # seconds to S3 and DynamoDB and back, where waiting is emulated
BATCH = 10  # messages that SQS hands over at once


def main() -> None:
    """Times every stage over the photos of the command line, round by round, so that a busy moment disturbs all."""
    rounds, paths = int(sys.argv[1]), [Path(path) for path in sys.argv[2:]]
    captioner = load_captioner()
    bundle, size = captioner.bundle, captioner.image_size
    files = [path.read_bytes() for path in paths]
    pixels = [read_photo(data, size).pixels[None] for data in files]
    opened = [_decoded(data, size) for data in files]
    names, count = bundle.contexts + bundle.states, len(paths)
    encoded = [dict(zip(names, bundle.encoder.run(names, {"image": photo}), strict=True)) for photo in pixels]
    steps = [_decoder_runs(captioner, photo) for photo in pixels]
    batch = np.concatenate(pixels)
    large, small = (_jpeg(paths[0], wanted) for wanted in (LARGE, SMALL))
    work: dict[str, Callable[[], Any]] = {
        "read": lambda: [path.read_bytes() for path in paths],
        "decode": lambda: [_decoded(data, size) for data in files],
        "resize": lambda: [square(image, size) for image in opened],
        "encoder": lambda: [bundle.encoder.run(names, {"image": photo}) for photo in pixels],
        "decoder": lambda: [bundle.decoder.run(*run) for runs in steps for run in runs],
        "encoder, decoder and search": lambda: [captioner.caption(photo) for photo in pixels],
        "all, one by one": lambda: [
            captioner.caption(read_photo(path.read_bytes(), size).pixels[None]) for path in paths
        ],
        "encoder, decoder and search, as one batch": lambda: captioner.caption(batch),
        "greedy": lambda: [captioner.caption(photo, 1) for photo in pixels],
    }
    greedy = ways(bundle, BUNDLE / "decoder.onnx")
    first, *others = ([way(photo) for photo in encoded] for way in greedy.values())
    if any(said != first for said in others):
        raise RuntimeError("the ways to drive the decoder differ in what they say")
    for name, way in greedy.items():
        work[f"greedy decoding, {name}"] = partial(_each, way, encoded)
    seconds: dict[str, list[float]] = {stage: [] for stage in work}
    rates = {"NumPy": _numpy_product(), "onnxruntime": _onnxruntime_product()}
    best = dict.fromkeys(rates, 0.0)
    sizes: dict[str, list[float]] = {"12 megapixels": [], "0.3 megapixels": []}
    for number in range(rounds + 1):
        for stage, do in work.items():
            took = _time(do) / count
            if number:  # the first warms up
                seconds[stage].append(took)
        for name, product in rates.items():
            best[name] = max(best[name], SIDE**3 / _time(product))
        for name, data in zip(sizes, (large, small), strict=True):
            sizes[name].append(_time(partial(_caption, captioner, data)))
    macs = multiply_adds(onnx.load(BUNDLE / "encoder.onnx"))
    service, afar = _settled(paths, rounds)
    print(
        json.dumps(
            {
                "model": captioner.name,
                "seconds": seconds,
                "multiply_adds_a_second": best,
                "encoder_multiply_adds": macs,
                "sizes": {name: statistics.median(times[1:]) for name, times in sizes.items()},
                "service": service,
                "afar": afar,
                "megabytes": sum(file.stat().st_size for file in BUNDLE.glob("*.onnx")) / 1e6,
            }
        )
    )


def _caption(captioner: Captioner, data: bytes) -> str:
    return captioner.caption(read_photo(data, captioner.image_size).pixels[None])[0][0].text


def _each(way: Way, encoded: list[dict[str, Any]]) -> None:
    for photo in encoded:
        way(photo)


def _settled(paths: list[Path], rounds: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What the function itself measures for an upload, in seconds: the median by name. S3 and DynamoDB are moto's.

    Then what an upload takes where they are far away.
    """
    found: dict[str, list[float]] = {}
    with local_aws() as endpoint:
        stack = Stack()
        keep_local(os.environ, endpoint, stack.region)
        clients: list[Any] = [boto3.client(name) for name in ("s3", "sqs", "dynamodb")]
        bucket, _, _ = create_stack(stack, *clients)
        os.environ.update(stack.properties("Captions")["Environment"]["Variables"])
        service = replace(deployed_service(), measure=lambda name, value: found.setdefault(name, []).append(value))
        for number in range(rounds):
            for path in paths:
                name = ObjectName(bucket, f"{number}/{path.name}")
                clients[0].put_object(Bucket=bucket, Key=name.key, Body=path.read_bytes(), ContentType="image/jpeg")
                settle(name, service)
        near = {name.removesuffix("Milliseconds"): statistics.median(values) / 1000 for name, values in found.items()}
        return near, _from_afar(service, clients[0], bucket, paths, rounds)


def _from_afar(service: Service, s3: Any, bucket: str, paths: list[Path], rounds: int) -> dict[str, list[float]]:
    """Seconds an upload, one a call and as a batch, with each call to S3 and DynamoDB delayed by AFAR."""

    def delay(**_: Any) -> None:
        time.sleep(AFAR)

    for client in (service.s3, service.records.dynamodb):
        client.meta.events.register("before-send.*.*", delay)
    (message,) = json.loads((ROOT / "events" / "sqs-s3-put.json").read_bytes())["Records"]
    notification = json.loads(message["body"])
    away = f"S3 and DynamoDB {1000 * AFAR:.0f} ms away (emulated)"
    found: dict[str, list[float]] = {f"{away}, one a call": [], f"{away}, {BATCH} a call": []}
    for number in range(rounds):
        for way, at_once in zip(found, (1, BATCH), strict=True):
            messages = []
            for at in range(BATCH):
                path = paths[at % len(paths)]
                key = f"afar/{number}/{at_once}/{at}-{path.name}"
                s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), ContentType="image/jpeg")
                notification["Records"][0]["s3"] |= {"bucket": {"name": bucket}, "object": {"key": key}}
                messages.append({**message, "messageId": key, "body": json.dumps(notification)})
            began = time.perf_counter()
            for first in range(0, BATCH, at_once):
                failed = answer({"Records": messages[first : first + at_once]}, service)["batchItemFailures"]
                if failed:
                    raise RuntimeError(f"not settled: {failed}")
            found[way].append((time.perf_counter() - began) / BATCH)
    return found


def _time(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def _decoded(data: bytes, size: tuple[int, int]) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.draft(None, (2 * size[0], 2 * size[1]))
    return image.convert("RGB")


def _jpeg(path: Path, size: tuple[int, int]) -> bytes:
    file = BytesIO()
    Image.open(path).convert("RGB").resize(size).save(file, "JPEG", quality=90)
    return file.getvalue()


def _decoder_runs(captioner: Captioner, photo: np.ndarray) -> list[tuple[list[str], dict[str, Any]]]:
    """What the decoder is asked while a photo is captioned: the arguments of each run."""
    runs = []

    class Recording:
        def run(self, outputs, feeds):  # type: ignore[no-untyped-def]
            runs.append((outputs, dict(feeds)))
            return captioner.bundle.decoder.run(outputs, feeds)

        def __getattr__(self, name: str) -> Any:
            return getattr(captioner.bundle.decoder, name)

    Captioner(replace(captioner.bundle, decoder=Recording())).caption(photo)
    return runs


def _numpy_product() -> Callable[[], Any]:
    a, b = np.random.default_rng(0).random((2, SIDE, SIDE), dtype=np.float32)
    return lambda: a @ b


def _onnxruntime_product() -> Callable[[], Any]:
    a, b = np.random.default_rng(0).random((2, SIDE, SIDE), dtype=np.float32)
    tensors = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in "abc"}
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "product", [tensors["a"], tensors["b"]], [tensors["c"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    product = session(model)
    return lambda: product.run(None, {"a": a, "b": b})


if __name__ == "__main__":
    main()
