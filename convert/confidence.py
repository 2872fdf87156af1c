"""How far captions can be believed, learnt from what they score: fits a bundle's confidence.json.

Two factors, see function/confidence.py, each a logistic regression:

    known   train photos against drawn pictures that are none (convert/unlike.py), from what the encoder says of them
    right   dev captions, from the search's score: does a caption come at least as close to the photo's references, in
            CIDEr-D, as the middling person's caption does to the other four? (Platt 1999, on a threshold people set)

What is shown of it is held out: dev photos in five folds, each judged by a fit on the other four.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from convert import data
from convert.cider import CiderD
from convert.unlike import KINDS
from function.captioner import Captioner, load_captioner
from function.captioner import score as score_of
from function.confidence import sigmoid
from function.photos import read_photo

FOLDS = 5
BINS = 10  # of equal numbers of photos
DRAWN = 200  # pictures of each kind
PENALTY = (
    30.0  # on the squared weights of what is standardised; leaves `known` sure of dev photos and of left-out kinds
)


@dataclass(frozen=True)
class Calibration:
    """What held-out dev captions show."""

    confidence: np.ndarray  # (photos,)
    right: np.ndarray  # (photos,) bool
    threshold: float  # CIDEr-D x100 of the middling person's caption
    drawn: dict[str, np.ndarray]  # of each kind of picture, by a fit that had none of that kind: `known`
    known: np.ndarray  # (photos,) the same of dev photos

    @property
    def bins(self) -> list[tuple[float, float]]:
        """Mean confidence and share of right captions, in bins of equal size, the least sure first."""
        order = np.array_split(np.argsort(self.confidence, kind="stable"), min(BINS, len(self.confidence)))
        return [(float(self.confidence[b].mean()), float(self.right[b].mean())) for b in order]

    @property
    def error(self) -> float:
        """Expected calibration error: the bins' mean distance between what was said and what was so."""
        return float(np.mean([abs(said - so) for said, so in self.bins]))

    @property
    def area(self) -> float:
        """How often a right caption is surer than a wrong one (area under the ROC curve); NaN without both."""
        right, wrong = self.confidence[self.right], self.confidence[~self.right]
        if not (len(right) and len(wrong)):
            return float("nan")
        surer, level = right[:, None] > wrong, right[:, None] == wrong
        return float((surer + level / 2).mean())

    def __str__(self) -> str:
        lines = [
            f"right: CIDEr-D of at least {self.threshold:.0f}, what the middling person's caption scores; "
            f"{100 * self.right.mean():.0f} % of {len(self.right)} captions are",
            f"calibration error {self.error:.3f}, area under the ROC curve {self.area:.2f}",
            "",
            "| said | " + " | ".join(f"{said:.2f}" for said, _ in self.bins) + " |",
            "| --- |" + " --- |" * len(self.bins),
            "| so | " + " | ".join(f"{so:.2f}" for _, so in self.bins) + " |",
            "",
            f"99 % of dev photos are known by {np.percentile(self.known, 1):.2f} or more;",
            "99 % of the pictures of a drawn kind, by a fit that had none of it, by at most "
            + ", ".join(f"{kind} {np.percentile(values, 99):.2f}" for kind, values in self.drawn.items()),
        ]
        return "\n".join(lines)


def logistic(x: np.ndarray, y: np.ndarray, penalty: float = 0.0) -> tuple[np.ndarray, float]:
    """Weights (D,) and bias of a logistic regression of y (N,) on x (N, D), by Newton's method.

    `penalty` is on the squared weights of x standardised; the bias goes free. Both classes weigh the same with it.
    """
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-9
    design = np.column_stack([(x - mean) / deviation, np.ones(len(x))])
    ridge = penalty * np.diag([*np.ones(x.shape[1]), 0.0])
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        p = sigmoid(design @ beta)
        gradient = design.T @ (p - y) + ridge @ beta
        hessian = (design.T * (p * (1 - p))) @ design + ridge + 1e-9 * np.eye(len(beta))
        step = np.linalg.solve(hessian, gradient)
        beta -= step
        if np.abs(step).max() < 1e-8:
            break
    weights = beta[:-1] / deviation
    return weights, float(beta[-1] - weights @ mean)


def people_score(captions: data.Captions) -> float:
    """The median CIDEr-D (x1) of a person's caption against the others of its photo."""
    scores = []
    for left_out in range(5):
        rest = [[c for i, c in enumerate(photo) if i != left_out] for photo in captions.tokens]
        scorer = CiderD(rest)
        scores += [scorer.score(i, photo[left_out % len(photo)]) for i, photo in enumerate(captions.tokens)]
    return float(np.median(scores))


def calibrate(bundle: Path, folder: Path, photos: int | None = None) -> Calibration:
    """Fit confidence.json into a bundle from the first `photos` of each split (default: all); what held-out dev shows.

    Raises:
        DataError, BundleError, UnreadablePhoto: what is needed cannot be read.
        ValueError: the encoder says nothing of a photo in one row.
    """
    captioner = load_captioner(bundle)
    tensor = _vector(captioner)
    train, dev = data.read_captions(folder, "train"), data.read_captions(folder, "dev")
    liked = _vectors(captioner, tensor, [folder / "images" / name for name in train.names[:photos]])
    seen = _vectors(captioner, tensor, [folder / "images" / name for name in dev.names[:photos]])
    random = np.random.default_rng(0)
    drawn = {
        kind.__name__: _encode(captioner, tensor, [_read(captioner, kind(random)) for _ in range(DRAWN)])
        for kind in tqdm(KINDS, "draw")
    }

    threshold = people_score(dev)
    scores, right = _scores(captioner, folder, dev, photos, threshold)
    known_weights, known_bias = _fit_known(liked, list(drawn.values()))
    known = sigmoid(seen @ known_weights + known_bias)
    fold = np.random.default_rng(0).integers(0, FOLDS, len(scores))
    confidence = np.zeros(len(scores))
    for held in range(FOLDS):
        slope, offset = logistic(scores[fold != held, None], right[fold != held])
        confidence[fold == held] = (known * sigmoid(slope[0] * scores + offset))[fold == held]
    others = {}
    for kind, vectors in drawn.items():
        weights, bias = _fit_known(liked, [v for k, v in drawn.items() if k != kind])
        others[kind] = sigmoid(vectors @ weights + bias)

    slope, offset = logistic(scores[:, None], right)
    fitted = {
        "tensor": tensor,
        "weights": [float(f"{w:.5g}") for w in known_weights],
        "bias": known_bias,
        "slope": float(slope[0]),
        "offset": offset,
    }
    _keep(bundle, json.dumps(fitted).encode())
    return Calibration(confidence, right, 100 * threshold, others, known)


def draw(calibration: Calibration) -> str:
    """A reliability diagram, SVG: a point a bin, on the diagonal where what was said was so."""
    side, edge = 300, 50
    points = [(edge + side * said, edge / 2 + side * (1 - so)) for said, so in calibration.bins]
    spots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>' for x, y in points)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    ticks = "".join(
        f'<text x="{edge + side * t:.0f}" y="{edge / 2 + side + 20}" text-anchor="middle">{t:g}</text>'
        f'<text x="{edge - 8}" y="{edge / 2 + side * (1 - t) + 4:.0f}" text-anchor="end">{t:g}</text>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    )
    bottom, right = edge / 2 + side, edge + side
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side + 1.6 * edge:.0f} {side + 1.6 * edge:.0f}" \
font-family="sans-serif" font-size="12" role="img" aria-label="Reliability diagram">
<rect width="100%" height="100%" fill="white"/>
<rect x="{edge}" y="{edge / 2}" width="{side}" height="{side}" fill="none" stroke="#999"/>
<path d="M{edge} {bottom}L{right} {edge / 2}" stroke="#999" stroke-dasharray="4"/>
{ticks}
<text x="{edge + side / 2}" y="{bottom + 40}" text-anchor="middle">confidence said</text>
<text transform="translate(12 {edge / 2 + side / 2}) rotate(-90)" text-anchor="middle">share of captions right</text>
<g fill="#06c"><polyline points="{line}" fill="none" stroke="#06c"/>{spots}</g>
</svg>
"""


def _vector(captioner: Captioner) -> str:
    """The encoder's output that says of a photo in one row what it is: a state, or else a context."""
    rows = {t.name: t.shape for t in captioner.bundle.encoder.get_outputs()}
    for name in captioner.bundle.states + captioner.bundle.contexts:
        if len(rows[name]) == 2:
            return name
    raise ValueError("the encoder says nothing of a photo in one row, that it could be known by")


def _read(captioner: Captioner, picture) -> np.ndarray:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return read_photo(file.getvalue(), captioner.image_size).pixels


def _encode(captioner: Captioner, tensor: str, pixels: list[np.ndarray]) -> np.ndarray:
    run = captioner.bundle.encoder.run
    return np.concatenate(
        [run([tensor], {"image": np.stack(pixels[i : i + 16])})[0] for i in range(0, len(pixels), 16)]
    )


def _vectors(captioner: Captioner, tensor: str, files: list[Path]) -> np.ndarray:
    return np.concatenate(
        [
            _encode(
                captioner, tensor, [read_photo(f.read_bytes(), captioner.image_size).pixels for f in files[i : i + 16]]
            )
            for i in tqdm(range(0, len(files), 16), "encode", unit="batch")
        ]
    )


def _scores(captioner, folder: Path, dev: data.Captions, photos: int | None, threshold: float):
    """The search's score of each dev photo's caption, and whether the caption is right."""
    scorer = CiderD(dev.tokens)
    scores, right = [], []
    names = dev.names[:photos]
    for start in tqdm(range(0, len(names), 16), "caption", unit="batch"):
        files = [folder / "images" / name for name in names[start : start + 16]]
        pixels = np.stack([read_photo(file.read_bytes(), captioner.image_size).pixels for file in files])
        for i, (best, *_) in enumerate(captioner.caption(pixels), start):
            scores.append(score_of(best, captioner.bundle.length_exponent))
            right.append(scorer.score(i, data.tokenize(best.text)) >= threshold)
    return np.array(scores), np.array(right)


def _fit_known(liked: np.ndarray, drawn: list[np.ndarray]) -> tuple[np.ndarray, float]:
    x = np.concatenate([liked, *drawn])
    return logistic(x, np.arange(len(x)) < len(liked), PENALTY)


def _keep(bundle: Path, fitted: bytes) -> None:
    (bundle / "confidence.json").write_bytes(fitted)
    document = json.loads((bundle / "bundle.json").read_text("utf-8"))
    document["files"]["confidence.json"] = hashlib.sha256(fitted).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
