"""A model bundle: a folder that holds all the captioner knows about its model.

`bundle.json` (settings, and the hash of every other file), `vocabulary.json` (the index is the token),
`encoder.onnx`, `decoder.onnx` and, once it is calibrated, `confidence.json`. Everything is checked as it is
loaded: a bundle that loads also runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from function.confidence import Confidence, read_confidence

# Each setting that is read from bundle.json and its type; [int] is a list of int.
SETTINGS = {
    "format": int,
    "name": str,
    "files": dict,
    "image.width": int,
    "image.height": int,
    "image.resize": str,
    "decoder": str,
    "tokens.pad": int,
    "tokens.start": int,
    "tokens.end": int,
    "tokens.never": [int],
    "longest_caption": int,
    "decoding.beams": int,
    "decoding.length_exponent": float,
    "sentence.glue": [str],
    "sentence.never_last": [str],
}
# What a setting is where bundle.json leaves it out; it may not leave out any other.
DEFAULTS: dict[str, Any] = {"sentence.glue": [], "sentence.never_last": []}


class BundleError(Exception):
    """The bundle cannot be used; `str` of it is one line: which file, and what is wrong with it."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that was loaded and checked."""

    name: str
    image_size: tuple[int, int]  # (width, height) of the encoder's input, in pixels
    vocabulary: list[str]
    pad: int
    start: int
    end: int
    never: list[int]  # tokens that are never produced
    longest_caption: int  # in tokens, the end token not counted
    beams: int
    length_exponent: float
    glue: frozenset[str]  # words written without a space before them
    never_last: frozenset[str]  # words that end no sentence
    encoder: ort.InferenceSession
    decoder: ort.InferenceSession
    contexts: list[str]  # what the encoder says once and the decoder reads at each step
    states: list[str]  # what the encoder begins and each step of the decoder carries on
    prefix: bool  # the decoder reads the caption so far, instead of its last token and states
    confidence: Confidence | None


def load_bundle(folder: Path, threads: int | None = None) -> Bundle:
    """Read a bundle; check its format, settings and hashes, and the names, types and shapes of its tensors.

    `threads`: how many work on one operator, by default one for each processor this process may use.
    Raises BundleError.
    """
    with _naming(folder / "bundle.json"):
        settings = _settings((folder / "bundle.json").read_bytes())
        files: dict[str, str] = settings["files"]
        for name in ("encoder.onnx", "decoder.onnx", "vocabulary.json"):
            if name not in files:
                raise ValueError(f"files does not list {name}")
    for name, sha256 in files.items():
        _check_hash(folder / name, sha256)
    with _naming(folder / "vocabulary.json"):
        vocabulary = json.loads((folder / "vocabulary.json").read_bytes())
        if not _is(vocabulary, [str]):
            raise ValueError("not a list of strings")
    with _naming(folder / "encoder.onnx"):
        encoder = _session(folder / "encoder.onnx", threads)
    with _naming(folder / "decoder.onnx"):
        decoder = _session(folder / "decoder.onnx", threads)
    with _naming(folder / "confidence.json"):
        told = (folder / "confidence.json").read_bytes() if "confidence.json" in files else None
        confidence = read_confidence(told) if told is not None else None
        if confidence:
            _check_confidence(confidence, encoder)
    encoded = [tensor.name for tensor in encoder.get_outputs()]
    bundle = Bundle(
        name=settings["name"],
        image_size=(settings["image.width"], settings["image.height"]),
        vocabulary=vocabulary,
        pad=settings["tokens.pad"],
        start=settings["tokens.start"],
        end=settings["tokens.end"],
        never=settings["tokens.never"],
        longest_caption=settings["longest_caption"],
        beams=settings["decoding.beams"],
        length_exponent=settings["decoding.length_exponent"],
        glue=frozenset(settings["sentence.glue"]),
        never_last=frozenset(settings["sentence.never_last"]),
        encoder=encoder,
        decoder=decoder,
        contexts=[name for name in encoded if name.startswith("context_")],
        states=[name for name in encoded if name.startswith("state_")],
        prefix=settings["decoder"] == "prefix",
        confidence=confidence,
    )
    with _naming(folder / "bundle.json"):
        _check_tokens(bundle)
    with _naming(folder / "encoder.onnx"):
        _check_encoder(bundle)
    with _naming(folder / "decoder.onnx"):
        _check_decoder(bundle)
    return bundle


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever goes wrong in here is wrong with this file."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except Exception as error:  # ValueError from the checks, and onnxruntime's own
        raise BundleError(f"{path}: {' '.join(str(error).split())}") from error


def _settings(data: bytes) -> dict[str, Any]:
    """bundle.json flat, {"image.width": 224, ...}, with all of SETTINGS there and of their types."""
    document = json.loads(data)
    flat = {}
    for path, kind in SETTINGS.items():
        value = _setting(document, path)
        if not _is(value, kind):
            raise ValueError(f"{path} is {json.dumps(value)}, expected {_kind(kind)}")
        flat[path] = value
    for path, known in (("format", [1]), ("image.resize", ["stretch"]), ("decoder", ["step", "prefix"])):
        if flat[path] not in known:
            raise ValueError(f"{path} is {flat[path]!r}, known is {' or '.join(map(repr, known))}")
    for path, least in (("longest_caption", 1), ("decoding.beams", 1), ("decoding.length_exponent", 0)):
        if not flat[path] >= least:
            raise ValueError(f"{path} is {flat[path]}, expected at least {least}")
    return flat


def _setting(value: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            if path in DEFAULTS:
                return DEFAULTS[path]
            raise ValueError(f"{path} is missing")
        value = value[key]
    return value


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is(item, kind[0]) for item in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _kind(kind: Any) -> str:
    return f"a list of {kind[0].__name__}" if isinstance(kind, list) else str(kind.__name__)


def _check_hash(path: Path, sha256: str) -> None:
    with _naming(path), path.open("rb") as file:
        if (actual := hashlib.file_digest(file, "sha256").hexdigest()) != sha256:
            raise ValueError(f"its sha256 is {actual}, bundle.json says {sha256}")


def _session(path: Path, threads: int | None) -> ort.InferenceSession:
    """onnxruntime reads the file itself: bytes held here as well would be a tenth of the process's memory."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or _processors()
    options.inter_op_num_threads = 1
    # Threads that spin between operators burn the processor time that Lambda rations.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_tokens(bundle: Bundle) -> None:
    size = len(bundle.vocabulary)
    for token in (bundle.pad, bundle.start, bundle.end, *bundle.never):
        if not 0 <= token < size:
            raise ValueError(f"token {token} is outside the vocabulary of {size}")
    if bundle.end in bundle.never:
        raise ValueError(f"the end token {bundle.end} is in tokens.never, so that no caption could end")


def _check_encoder(bundle: Bundle) -> None:
    """image -> any number of context_* and state_*."""
    width, height = bundle.image_size
    _check_inputs(bundle.encoder, {"image": ("tensor(uint8)", ["N", height, width, 3])})
    outputs = bundle.encoder.get_outputs()
    for tensor in outputs:
        if tensor.name not in bundle.contexts + bundle.states:
            raise ValueError(f"output {tensor.name} is neither a context_* nor a state_*")
        _check(tensor, tensor.type, ["N", *tensor.shape[1:]])


def _check_decoder(bundle: Bundle) -> None:
    """The last token, or all so far, and what the encoder says -> log_probs and each state carried on."""
    encoded = {tensor.name: (tensor.type, ["B", *tensor.shape[1:]]) for tensor in bundle.encoder.get_outputs()}
    if not bundle.prefix:
        _check_inputs(bundle.decoder, {"token": ("tensor(int64)", ["B"]), **encoded})
    elif bundle.states:
        raise ValueError(f"a prefix decoder carries no state, the encoder has {', '.join(bundle.states)}")
    else:
        _check_inputs(bundle.decoder, {"tokens": ("tensor(int64)", ["B", "L"]), **encoded})
        (width,) = (tensor.shape[1] for tensor in bundle.decoder.get_inputs() if tensor.name == "tokens")
        if isinstance(width, int) and width <= bundle.longest_caption:
            raise ValueError(f"it reads {width} tokens, the longest caption and its start are more")
    outputs = {tensor.name: tensor for tensor in bundle.decoder.get_outputs()}
    for name in ["log_probs", *(f"next_{state}" for state in bundle.states)]:
        if name not in outputs:
            raise ValueError(f"output {name} is missing")
    _check(outputs["log_probs"], "tensor(float)", ["B", len(bundle.vocabulary)])
    for state in bundle.states:
        _check(outputs[f"next_{state}"], *encoded[state])
    if "attention" in outputs:
        _check(outputs["attention"], "tensor(float)", ["B", "regions"])


def _check_confidence(confidence: Confidence, encoder: ort.InferenceSession) -> None:
    shapes = {tensor.name: tensor.shape[1:] for tensor in encoder.get_outputs()}
    width = len(confidence.weights)
    if shapes.get(confidence.tensor) != [width]:
        raise ValueError(f"the encoder has no output {confidence.tensor} of width {width}")


def _check_inputs(session: ort.InferenceSession, expected: dict[str, tuple[str, list[Any]]]) -> None:
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    if inputs.keys() != expected.keys():
        raise ValueError(f"its inputs are {', '.join(sorted(inputs))}, expected {', '.join(sorted(expected))}")
    for name, (kind, shape) in expected.items():
        _check(inputs[name], kind, shape)


def _check(tensor: ort.NodeArg, kind: str, shape: list[Any]) -> None:
    """Type, rank and every axis known on both sides must agree; the first axis, the batch, must be free."""
    agree = len(tensor.shape) == len(shape) and all(
        have == want
        for have, want in zip(tensor.shape, shape, strict=True)
        if isinstance(have, int) and isinstance(want, int)
    )
    if tensor.type != kind or not agree or isinstance(tensor.shape[0], int):
        raise ValueError(f"{tensor.name} is {tensor.type} {_axes(tensor.shape)}, expected {kind} {_axes(shape)}")


def _axes(shape: list[Any]) -> str:
    return f"({', '.join(str(axis) if axis is not None else '?' for axis in shape)})"
