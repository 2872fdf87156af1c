"""How long a photo takes on one core, stage by stage: what `make bench` prints."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from function.captioner import load_captioner
from function.photos import read_photo
from infra.local import SAMPLES

REPEATS = 15


def main() -> None:
    """Times the stages over the sample photos, round by round, so that a busy moment disturbs all of them alike."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before onnxruntime counts the processors
    captioner = load_captioner()
    bundle = captioner.bundle
    files = [path.read_bytes() for path in sorted(Path(SAMPLES).glob("*.jpg"))]
    pixels = [read_photo(data, captioner.image_size).pixels[None] for data in files]
    names = bundle.contexts + bundle.states
    stages: dict[str, Callable[[int], object]] = {
        "read, decode, resize": lambda i: read_photo(files[i], captioner.image_size),
        "encoder": lambda i: bundle.encoder.run(names, {"image": pixels[i]}),
        "encoder and search, greedy": lambda i: captioner.caption(pixels[i], 1),
        f"encoder and search, {bundle.beams} beams": lambda i: captioner.caption(pixels[i]),
    }
    rounds: dict[str, list[float]] = {stage: [] for stage in stages}
    for number in range(REPEATS + 1):
        for stage, work in stages.items():
            began = time.perf_counter()
            for i in range(len(files)):
                work(i)
            if number:  # the first warms up
                rounds[stage].append((time.perf_counter() - began) / len(files))
    print(f"{captioner.name}, one core, {len(files)} photos, median of {REPEATS} rounds (least to most)\n")
    print("| stage | milliseconds a photo | over the encoder's |\n| --- | --- | --- |")
    for stage, times in rounds.items():
        ratios = [own / encoder for own, encoder in zip(times, rounds["encoder"], strict=True)]
        print(f"| {stage} | {_spread([1000 * t for t in times], 1)} | {_spread(ratios, 2)} |")


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
