"""How good is a bundle: the captions that `function/` writes with it, scored as the field does.

A thousand photos tell differences of CIDEr under two points hardly apart: two evaluations are compared photo by photo,
by a paired bootstrap (Koehn 2004).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from convert import data, scores
from function.captioner import load_captioner
from function.photos import read_photo


@dataclass(frozen=True)
class Evaluation:
    """Captions of a split and their scores (x100)."""

    model: str  # its name
    split: str
    beams: int
    names: list[str]
    captions: list[str]
    references: list[list[str]]
    scores: dict[str, float]
    cider: np.ndarray  # of each photo


def evaluate(
    bundle: Path, folder: Path, split: str, beams: int | None = None, photos: int | None = None, at_once: int = 16
) -> Evaluation:
    """Caption the first `photos` photos of a split (default: all) with the shipped runtime, and score the captions.

    `at_once` go together, which is faster; a decoder in int8 rounds a photo's numbers with those of its company.

    Raises:
        DataError, BundleError, UnreadablePhoto: what is evaluated cannot be read.
    """
    captioner = load_captioner(bundle)
    truth = data.read_captions(folder, split)
    names, references = truth.names[:photos], truth.raw[:photos]
    captions = []
    for start in tqdm(range(0, len(names), at_once), "caption", unit="batch"):
        files = [folder / "images" / name for name in names[start : start + at_once]]
        pixels = np.stack([read_photo(file.read_bytes(), captioner.image_size).pixels for file in files])
        captions += [found[0].text for found in captioner.caption(pixels, beams)]
    scored = scores.score(captions, references)
    cider = scored.pop("cider")
    beams = beams or captioner.bundle.beams
    return Evaluation(captioner.name, split, beams, names, captions, references, scored, cider)


def table(evaluation: Evaluation) -> str:
    """The scores as a line of a Markdown table, with its head."""
    names = list(evaluation.scores)
    return "\n".join(
        [
            f"| {evaluation.split}, beam {evaluation.beams} | " + " | ".join(names) + " |",
            "| --- |" + " --- |" * len(names),
            f"| {len(evaluation.names)} photos | " + " | ".join(f"{evaluation.scores[n]:.1f}" for n in names) + " |",
        ]
    )


def save(evaluation: Evaluation, out: Path) -> None:
    """Write captions and each photo's CIDEr (x100) as JSON, for `compare`."""
    photos = [
        {"photo": name, "caption": caption, "cider": round(float(cider), 3)}
        for name, caption, cider in zip(evaluation.names, evaluation.captions, evaluation.cider, strict=True)
    ]
    head = {"model": evaluation.model, "split": evaluation.split, "beams": evaluation.beams}
    out.write_text(json.dumps(head | {"scores": evaluation.scores, "photos": photos}, indent=1), "utf-8")


@dataclass(frozen=True)
class Comparison:
    """How much better `after` is than `before`, in CIDEr (x100)."""

    before: str
    after: str
    photos: int
    others: int  # of whose captions differ
    difference: float
    low: float  # 95 % of the resampled sets of photos lie between the two
    high: float

    def __str__(self) -> str:
        verdict = "better" if self.low > 0 else "worse" if self.high < 0 else "no telling"
        return (
            f"{self.after} less {self.before}: CIDEr {self.difference:+.1f}, 95 % within {self.low:+.1f} and "
            f"{self.high:+.1f} over {self.photos} photos, {self.others} of them with another caption: {verdict}"
        )


def compare(before: Path, after: Path, resamples: int = 10_000) -> Comparison:
    """Compare two evaluations of the same photos that `save` wrote.

    Raises:
        ValueError: they are of other photos.
    """
    first, second = (json.loads(path.read_text("utf-8")) for path in (before, after))
    if [p["photo"] for p in first["photos"]] != [p["photo"] for p in second["photos"]]:
        raise ValueError(f"{before} and {after} are of other photos")
    gains = np.array([b["cider"] - a["cider"] for a, b in zip(first["photos"], second["photos"], strict=True)])
    random = np.random.default_rng(0)
    means = [gains[random.integers(0, len(gains), len(gains))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    others = sum(a["caption"] != b["caption"] for a, b in zip(first["photos"], second["photos"], strict=True))
    labels = [f"{e['model']} (beam {e['beams']})" for e in (first, second)]
    return Comparison(*labels, len(gains), others, float(gains.mean()), float(low), float(high))


def keep_metrics(bundle: Path, evaluation: Evaluation) -> None:
    """Note the scores in the bundle's own `metrics`."""
    path = bundle / "bundle.json"
    document = json.loads(path.read_text("utf-8"))
    key = f"{evaluation.split}, beam {evaluation.beams}"
    document["metrics"][key] = {name: round(value, 2) for name, value in evaluation.scores.items()}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
