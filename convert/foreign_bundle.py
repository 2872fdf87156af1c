"""Somebody else's captioner as a bundle, with a proof that it still says the same; without the proof there is none."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf
from keras import ops

from convert.applications import Vision
from convert.export import graph_of, sha256, write_bundle
from convert.foreign import LEAST, TOLERANCE, Captioner
from convert.keras_files import ModelError
from convert.tokenizers import Words
from function.bundles import Bundle, load_bundle
from function.captioner import Captioner as Runtime

LONGEST = 33  # words, where the model does not say
SLOW = (
    "a word at a time is another function, since padding is read too: each word runs the whole prefix. Train with "
    "mask_zero=True on the embedding, and with the words merged with the photo behind the LSTM, for one that is not."
)
ENCODER_TOLERANCE = 1e-3  # of the largest feature
LOG_TOLERANCE = 1e-3  # of log-probabilities, on photos


@dataclass(frozen=True)
class Report:
    """How the bundle compares with the Keras model."""

    decoder: str  # "step" or "prefix"
    why: str
    step_difference_on_random_prefixes: float | None
    photos: int
    steps: int
    encoder_difference: float  # over the largest feature
    log_probability_difference: float
    other_captions: int
    tensors: dict[str, float]  # the encoder's outputs -> their largest difference
    versions: dict[str, str]
    files: dict[str, str]  # -> SHA-256

    @property
    def passed(self) -> bool:
        return (
            self.encoder_difference < ENCODER_TOLERANCE
            and self.log_probability_difference < LOG_TOLERANCE
            and self.other_captions == 0
        )

    def __str__(self) -> str:
        return (
            f"decoder: {self.decoder} ({self.why})\n"
            f"{self.photos} photos, {self.steps} words: features differ by at most {self.encoder_difference:.1e} of "
            f"the largest, log-probabilities by {self.log_probability_difference:.1e}, {self.other_captions} captions "
            f"differ: {'passed' if self.passed else 'FAILED'}"
        )


def export_foreign(
    captioner: Captioner, vision: Vision, words: Words, photos: Iterable[np.ndarray], out: Path, name: str
) -> Report:
    """Write the bundle of a recognised model to `out`, whole or not at all. `photos` are uint8 of `vision.size`.

    Raises:
        ModelError: the words are not the model's, or the bundle would not say the same.
    """
    if len(words.vocabulary) != captioner.vocabulary:
        raise ModelError(
            f"the tokenizer has {len(words.vocabulary)} tokens, padding counted, and the model chooses among "
            f"{captioner.vocabulary}: they are not of the same training"
        )
    difference = captioner.step_difference()
    stepwise = difference < TOLERANCE
    decoder = _step_graph(captioner) if stepwise else _prefix_graph(captioner)
    graphs = {"encoder.onnx": _encoder_graph(captioner, vision, stepwise), "decoder.onnx": decoder}
    longest = (captioner.longest or LONGEST + 1) - 1
    document = {
        "image": {"width": vision.size[0], "height": vision.size[1], "resize": "stretch"},
        "decoder": "step" if stepwise else "prefix",
        "tokens": {
            "pad": words.pad,
            "start": words.start,
            "end": words.end,
            "unknown": words.unknown,
            "never": sorted({words.pad, words.start, words.unknown} - {words.end}),
        },
        "longest_caption": longest,
        "decoding": {"beams": 3, "length_exponent": 1.0},
        "sentence": {"glue": [], "never_last": []},
        "provenance": {"encoder": vision.name, "decoder": captioner.model.name, "versions": _versions()},
        "metrics": {},
        "licence": "that of the model it was made of",
    }
    why = f"equal to the whole prefix within {difference:.1e}" if stepwise else SLOW
    report = None

    def prove(folder: Path) -> None:
        nonlocal report
        report = compare(captioner, vision, load_bundle(folder), photos)
        report = Report(
            decoder=document["decoder"],
            why=why,
            step_difference_on_random_prefixes=difference if np.isfinite(difference) else None,
            versions=_versions(),
            files={file: sha256(folder / file) for file in graphs},
            **report,
        )
        if not report.passed:
            raise ModelError(f"the bundle does not say what the model says, and is not written\n{report}")
        (folder / "parity.json").write_text(json.dumps(asdict(report) | {"passed": True}, indent=1) + "\n")

    write_bundle(out, name, graphs, words.vocabulary, document, prove)
    return report


def compare(captioner: Captioner, vision: Vision, bundle: Bundle, photos: Iterable[np.ndarray]) -> dict:
    """Follow the Keras model's greedy caption of each photo, by whole prefixes, with the bundle's graphs."""
    runtime, never = Runtime(bundle), list(bundle.never)
    names = bundle.contexts + bundle.states
    worst, largest_difference, steps, other, count = dict.fromkeys(names, 0.0), 0.0, 0, 0, 0
    for pixels in photos:
        batch = pixels[None]
        features = vision.call(tf.cast(batch, tf.float32))
        states = captioner.first_states(features) if bundle.states else []
        keras_side = [ops.convert_to_numpy(value) for value in (features, *states)]
        feeds = dict(zip(names, bundle.encoder.run(names, {"image": batch}), strict=True))
        for tensor, theirs in zip(names, keras_side, strict=True):
            scale = float(np.abs(theirs).max()) or 1.0
            worst[tensor] = max(worst[tensor], float(np.abs(feeds[tensor] - theirs).max()) / scale)
        prefix = [bundle.start]
        for _ in range(bundle.longest_caption + 1):
            tokens = np.array([prefix])
            if captioner.longest:
                tokens = np.pad(tokens, ((0, 0), (captioner.longest - len(prefix), 0)))
            ours = ops.convert_to_numpy(captioner.log_probs(features, tokens))[0]
            if bundle.prefix:
                theirs = bundle.decoder.run(["log_probs"], {**feeds, "tokens": tokens.astype(np.int64)})[0][0]
            else:
                outputs = ["log_probs", *(f"next_{state}" for state in bundle.states)]
                (theirs,), *after = bundle.decoder.run(outputs, {**feeds, "token": np.array(prefix[-1:])})
                feeds.update(zip(bundle.states, after, strict=True))
            seen = ours > LEAST
            largest_difference = max(largest_difference, float(np.abs(ours - theirs)[seen].max()))
            steps += 1
            ours[never] = -np.inf
            prefix.append(int(ours.argmax()))
            if prefix[-1] == bundle.end:
                break
        said = tuple(token for token in prefix[1:] if token != bundle.end)[: bundle.longest_caption]
        other += runtime.caption(batch, 1)[0][0].tokens != said
        count += 1
    return {
        "photos": count,
        "steps": steps,
        "encoder_difference": max(worst.values()),
        "log_probability_difference": largest_difference,
        "other_captions": int(other),
        "tensors": worst,
    }


def _names(captioner: Captioner, states: int) -> list[str]:
    return ["context_features", *(f"state_{at}" for at in range(states))]


def _encoder_graph(captioner: Captioner, vision: Vision, stepwise: bool):
    def look(image):
        features = vision.call(tf.cast(image, tf.float32))
        states = captioner.first_states(features) if stepwise else []
        return dict(zip(_names(captioner, len(states)), (features, *states), strict=True))

    width, height = vision.size
    return graph_of(look, [tf.TensorSpec((None, height, width, 3), tf.uint8, "image")], {}, "N")


def _step_graph(captioner: Captioner):
    shapes = [captioner.features, *(state.shape[1:] for state in captioner.first_states(_one(captioner)))]
    names = _names(captioner, len(shapes) - 1)
    inputs = [tf.TensorSpec((None, *shape), tf.float32, name) for name, shape in zip(names, shapes, strict=True)]

    def step(token, features, *states):
        log_probs, after = captioner.step(token, features, states)
        return {"log_probs": log_probs, **{f"next_{name}": x for name, x in zip(names[1:], after, strict=True)}}

    return graph_of(step, [tf.TensorSpec((None,), tf.int64, "token"), *inputs], {}, "B")


def _prefix_graph(captioner: Captioner):
    signature = [
        tf.TensorSpec((None, captioner.longest), tf.int64, "tokens"),
        tf.TensorSpec((None, *captioner.features), tf.float32, "context_features"),
    ]

    def say(tokens, features):
        return {"log_probs": captioner.log_probs(features, tokens)}

    return graph_of(say, signature, {}, "B")


def _one(captioner: Captioner) -> np.ndarray:
    return np.zeros((1, *captioner.features), np.float32)


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxruntime")}
