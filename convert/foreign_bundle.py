"""Somebody else's captioner as a bundle, with a proof that it still says the same; without the proof there is none."""

import json
import tempfile
import timeit
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from html import escape
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import tensorflow as tf
from keras import ops
from PIL import Image, ImageOps

from convert.applications import Vision
from convert.export import OPSET, graph_of, move_files, sha256, write_bundle
from convert.foreign import LEAST, TOLERANCE, Captioner
from convert.keras_files import ModelError
from convert.quantise import measure, optimised
from convert.report import page, table
from convert.tokenizers import Words
from function.bundles import Bundle, load_bundle
from function.captioner import Captioner as Runtime

LONGEST = 33  # words, where the model does not say
SLOW = (
    "a word at a time is another function, since padding is read too: each word runs the whole prefix. Train with "
    "mask_zero=True on the embedding, and with the words merged with the photo behind the LSTM, for one that is not."
)
UNLAYERED = "a SavedModel that Keras 3 exported holds no layers any more: save it as .keras for a word at a time"
ENCODER_TOLERANCE = 1e-3  # of the largest feature
DECODER_TOLERANCE = 1e-3  # of log-probabilities and states, on photos
TIE = 1e-5  # in log-probability: where the first two words are closer, rounding decides between them
VIEWS = 100  # photos that are compared at least


@dataclass(frozen=True)
class Report:
    """How the bundle compares with the Keras model; `parity.json`."""

    decoder: str  # "step" or "prefix"
    why: str
    step_difference_on_random_prefixes: float | None
    encoder: dict[str, float]  # its outputs -> their largest difference, over the largest number of each
    steps: list[dict[str, float]]  # of the first, second, … word: the decoder's outputs -> their largest difference
    captions: list[tuple[str, str]]  # of the Keras model, of the bundle
    ties: int  # captions that differ behind a tie
    opset: int
    load_milliseconds: tuple[float, float]  # onnxruntime's start with both graphs, as converted and as optimised
    versions: dict[str, str]
    files: dict[str, str]  # -> SHA-256
    smaller: str | None = None  # what float16 or int8 cost, where it was asked for

    @property
    def encoder_difference(self) -> float:
        return max(self.encoder.values())

    @property
    def decoder_difference(self) -> float:
        return max(max(step.values()) for step in self.steps)

    @property
    def other_captions(self) -> int:
        return sum(keras_side != ours for keras_side, ours in self.captions) - self.ties

    @property
    def passed(self) -> bool:
        return (
            self.encoder_difference < ENCODER_TOLERANCE
            and self.decoder_difference < DECODER_TOLERANCE
            and self.other_captions == 0
        )

    def __str__(self) -> str:
        ties = f", {self.ties} behind a tie" if self.ties else ""
        said = (
            f"decoder: {self.decoder} ({self.why})\n"
            f"{len(self.captions)} photos, up to {len(self.steps)} words: features differ by at most "
            f"{self.encoder_difference:.1e} of the largest, log-probabilities and states by "
            f"{self.decoder_difference:.1e}, {self.other_captions} captions differ{ties}: "
            f"{'passed' if self.passed else 'FAILED'}"
        )
        return f"{said}\nmade smaller: {self.smaller}" if self.smaller else said

    def write(self, folder: Path) -> None:
        """`parity.json`, and the same to read, `parity.html`."""
        counted = {name: getattr(self, name) for name in ("encoder_difference", "decoder_difference", "other_captions")}
        document = {"passed": self.passed, "photos": len(self.captions), **counted, **asdict(self)}
        (folder / "parity.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
        outputs = list(self.steps[0])
        before, after = self.load_milliseconds
        facts = {
            "opset": str(self.opset),
            "start of onnxruntime": f"{before:.0f} ms as converted, {after:.0f} ms as optimised",
            **self.versions,
            **self.files,
        }
        body = [
            *(f"<p>{escape(line)}</p>" for line in str(self).splitlines()),
            "<h2>Encoder</h2>",
            table(["output", "largest difference"], [[name, f"{x:.1e}"] for name, x in self.encoder.items()]),
            "<h2>Decoder, word by word</h2>",
            table(
                ["word", *outputs], [[str(at), *(f"{x:.1e}" for x in s.values())] for at, s in enumerate(self.steps, 1)]
            ),
            "<h2>Captions</h2>",
            table(["Keras", "bundle"], [(a, b if a != b else "the same") for a, b in self.captions]),
            "<h2>Made with</h2>",
            table(["what", "which"], facts.items()),
        ]
        title = f"Parity: {'passed' if self.passed else 'FAILED'}"
        (folder / "parity.html").write_text(page(title, "\n".join(body)), "utf-8")


def export_foreign(
    captioner: Captioner,
    vision: Vision,
    words: Words,
    photos: Iterable[np.ndarray],
    out: Path,
    name: str,
    opset: int = OPSET,
    shrink: Callable[[Path, Path], None] | None = None,
) -> Report:
    """Write the bundle of a recognised model to `out`, whole or not at all. `photos` are uint8 of `vision.size`.

    What `shrink` makes of the proved bundle (convert.quantise) is written instead, with its loss.

    Raises:
        ModelError: the words are not the model's, or the bundle would not say the same.
    """
    if len(words.vocabulary) != captioner.vocabulary:
        raise ModelError(
            f"the tokenizer has {len(words.vocabulary)} tokens, padding counted, and the model chooses among "
            f"{captioner.vocabulary}: they are not of the same training"
        )
    photos = at_least(VIEWS, list(photos))
    difference = captioner.step_difference()
    stepwise = difference < TOLERANCE
    plain = {
        "encoder.onnx": _encoder_graph(captioner, vision, stepwise, opset),
        "decoder.onnx": (_step_graph if stepwise else _prefix_graph)(captioner, opset),
    }
    graphs = {file: optimised(graph) for file, graph in plain.items()}
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
        "longest_caption": (captioner.longest or LONGEST + 1) - 1,
        "decoding": {"beams": 3, "length_exponent": 1.0},
        "sentence": {"glue": [], "never_last": []},
        "provenance": {"encoder": vision.name, "decoder": captioner.whole.name, "versions": _versions()},
        "metrics": {},
        "licence": "that of the model it was made of",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        exact = Path(folder) / "exact"
        write_bundle(exact, name, graphs, words.vocabulary, document)
        report = Report(
            decoder=document["decoder"],
            why=f"equal to the whole prefix within {difference:.1e}"
            if stepwise
            else SLOW
            if captioner.model
            else UNLAYERED,
            step_difference_on_random_prefixes=difference if np.isfinite(difference) else None,
            opset=opset,
            load_milliseconds=(_load(plain), _load(graphs)),
            versions=_versions(),
            files={file: sha256(exact / file) for file in graphs},
            **compare(captioner, vision, load_bundle(exact), photos),
        )
        if not report.passed:
            raise ModelError(f"the bundle does not say what the model says, and is not written\n{report}")
        made = exact
        if shrink:
            made = Path(folder) / "smaller"
            shrink(exact, made)
            files = {file: sha256(made / file) for file in graphs}
            report = replace(report, smaller=str(measure(exact, made, photos)), files=files)
        report.write(made)
        move_files(made, out)
    return report


def at_least(count: int, photos: list[np.ndarray]) -> list[np.ndarray]:
    """The photos, and where they are fewer than `count`, parts of them, cut and mirrored by chance, scaled up again.

    Raises:
        ModelError: there are none.
    """
    if not photos:
        raise ModelError("there are no photos to compare on: --images names a folder with .jpg or .png files")
    chance, seen = np.random.default_rng(0), list(photos)
    while len(seen) < count:
        whole = Image.fromarray(photos[len(seen) % len(photos)])
        side = chance.uniform(0.6, 0.9)
        width, height = (round(side * length) for length in whole.size)
        left, top = (int(chance.integers(whole.size[axis] - (width, height)[axis] + 1)) for axis in (0, 1))
        part = whole.crop((left, top, left + width, top + height)).resize(whole.size, Image.Resampling.BICUBIC)
        seen.append(np.asarray(ImageOps.mirror(part) if chance.random() < 0.5 else part))
    return seen


def compare(captioner: Captioner, vision: Vision, bundle: Bundle, photos: Iterable[np.ndarray]) -> dict:
    """Follow the Keras model's greedy caption of each photo, by whole prefixes, with the bundle's graphs.

    Returns:
        `encoder`, `steps`, `captions` and `ties` of a Report.
    """
    runtime, never = Runtime(bundle), list(bundle.never)
    names = bundle.contexts + bundle.states
    outputs = ["log_probs", *(f"next_{state}" for state in bundle.states)]
    encoder, steps, captions, ties = dict.fromkeys(names, 0.0), [], [], 0
    whole = tf.function(
        captioner.log_probs,
        input_signature=[
            tf.TensorSpec((1, *captioner.features), tf.float32),
            tf.TensorSpec((1, captioner.longest), tf.int64),
        ],
    )
    step = tf.function(captioner.step)
    look = tf.function(lambda image: vision.call(tf.cast(image, tf.float32)))
    for pixels in photos:
        batch = pixels[None]
        features = look(batch)
        states = captioner.first_states(features) if bundle.states else []
        feeds = dict(zip(names, bundle.encoder.run(names, {"image": batch}), strict=True))
        for tensor, theirs in zip(names, (features, *states), strict=True):
            theirs = ops.convert_to_numpy(theirs)
            scale = float(np.abs(theirs).max()) or 1.0
            encoder[tensor] = max(encoder[tensor], float(np.abs(feeds[tensor] - theirs).max()) / scale)
        prefix, tie = [bundle.start], False
        for at in range(bundle.longest_caption + 1):
            tokens = np.array([prefix])
            if captioner.longest:
                tokens = np.pad(tokens, ((0, 0), (captioner.longest - len(prefix), 0)))
            theirs = ops.convert_to_numpy(whole(features, tokens))
            if bundle.prefix:
                ours = bundle.decoder.run(outputs, {**feeds, "tokens": tokens.astype(np.int64)})
            else:
                token = np.array(prefix[-1:])
                ours = bundle.decoder.run(outputs, {**feeds, "token": token})
                feeds.update(zip(bundle.states, ours[1:], strict=True))
                _, states = step(tf.constant(token), features, states)
            seen = theirs > LEAST
            differences = [np.abs(ours[0] - theirs)[seen], *map(np.subtract, ours[1:], map(np.asarray, states))]
            if at == len(steps):
                steps.append(dict.fromkeys(outputs, 0.0))
            for output, difference in zip(outputs, differences, strict=True):
                steps[at][output] = max(steps[at][output], float(np.abs(difference).max()))
            theirs[0, never] = -np.inf
            second, first = np.partition(theirs[0], -2)[-2:]
            tie |= bool(first - second < TIE)
            prefix.append(int(theirs.argmax()))
            if prefix[-1] == bundle.end:
                break
        said = tuple(token for token in prefix[1:] if token != bundle.end)[: bundle.longest_caption]
        found = runtime.caption(batch, 1)[0][0].tokens
        captions.append((" ".join(runtime.words(said)), " ".join(runtime.words(found))))
        ties += tie and found != said
    return {"encoder": encoder, "steps": steps, "captions": captions, "ties": ties}


def _load(graphs: dict[str, onnx.ModelProto]) -> float:
    """Milliseconds until onnxruntime can run them: the least of three."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    data = [graph.SerializeToString() for graph in graphs.values()]

    def start() -> None:
        for graph in data:
            ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    return 1000 * min(timeit.repeat(start, number=1, repeat=3))


def _names(captioner: Captioner, states: int) -> list[str]:
    return ["context_features", *(f"state_{at}" for at in range(states))]


def _encoder_graph(captioner: Captioner, vision: Vision, stepwise: bool, opset: int):
    def look(image):
        features = vision.call(tf.cast(image, tf.float32))
        states = captioner.first_states(features) if stepwise else []
        return dict(zip(_names(captioner, len(states)), (features, *states), strict=True))

    width, height = vision.size
    return graph_of(look, [tf.TensorSpec((None, height, width, 3), tf.uint8, "image")], {}, "N", opset)


def _step_graph(captioner: Captioner, opset: int):
    shapes = [captioner.features, *(state.shape[1:] for state in captioner.first_states(_one(captioner)))]
    names = _names(captioner, len(shapes) - 1)
    inputs = [tf.TensorSpec((None, *shape), tf.float32, name) for name, shape in zip(names, shapes, strict=True)]

    def step(token, features, *states):
        log_probs, after = captioner.step(token, features, states)
        return {"log_probs": log_probs, **{f"next_{name}": x for name, x in zip(names[1:], after, strict=True)}}

    return graph_of(step, [tf.TensorSpec((None,), tf.int64, "token"), *inputs], {}, "B", opset)


def _prefix_graph(captioner: Captioner, opset: int):
    signature = [
        tf.TensorSpec((None, captioner.longest), tf.int64, "tokens"),
        tf.TensorSpec((None, *captioner.features), tf.float32, "context_features"),
    ]

    def say(tokens, features):
        return {"log_probs": captioner.log_probs(features, tokens)}

    return graph_of(say, signature, {}, "B", opset)


def _one(captioner: Captioner) -> np.ndarray:
    return np.zeros((1, *captioner.features), np.float32)


def _versions() -> dict[str, str]:
    return {
        package: version(package)
        for package in ("tensorflow-cpu", "keras", "tf-keras", "tf2onnx", "onnx", "onnxruntime")
    }
