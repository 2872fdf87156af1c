"""How good is a bundle: the captions that `function/` writes with it, scored as the field does."""

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


def evaluate(bundle: Path, folder: Path, split: str, beams: int | None = None, photos: int | None = None) -> Evaluation:
    """Caption the first `photos` photos of a split (default: all) with the shipped runtime, and score the captions.

    Raises:
        DataError, BundleError, UnreadablePhoto: what is evaluated cannot be read.
    """
    captioner = load_captioner(bundle)
    truth = data.read_captions(folder, split)
    names, references = truth.names[:photos], truth.raw[:photos]
    captions = []
    for start in tqdm(range(0, len(names), 16), "caption", unit="batch"):
        files = [folder / "images" / name for name in names[start : start + 16]]
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


def keep_metrics(bundle: Path, evaluation: Evaluation) -> None:
    """Note the scores in the bundle's own `metrics`."""
    path = bundle / "bundle.json"
    document = json.loads(path.read_text("utf-8"))
    key = f"{evaluation.split}, beam {evaluation.beams}"
    document["metrics"][key] = {name: round(value, 2) for name, value in evaluation.scores.items()}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
