"""What the benchmark measured, as Markdown tables and as a plot."""

import statistics
from collections.abc import Sequence
from html import escape
from typing import Any

from infra.bench import memory
from infra.cost import MANAGED_CAPTION

ORIGINAL = "the original's way: Keras, predict for each word"


def tables(results: dict[str, Any]) -> str:
    """Subjects side by side with their ratios, then this service's stages, then its limits."""
    machine, stages = results["machine"], results["stages"]
    return "\n\n".join(
        [
            f"One core of {machine['processor']}, {machine['system']}, Python {machine['python']}; "
            f"{results['photos']} photos, medians (least to most of the repeats).",
            _subjects(results["subjects"]),
            _stages(stages),
            _limits(results),
            *([_memory(results["memory"])] if results["memory"] else []),
        ]
    )


def _subjects(subjects: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| | a photo, warm | times faster | first caption | times sooner | peak memory | over the original's |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    base = subjects[ORIGINAL]
    for name, repeats in subjects.items():
        warm = [statistics.median(run["seconds"]) for run in repeats]
        first, memory = ([run[key] for run in repeats] for key in ("first", "megabytes"))
        faster, sooner, share = [], [], []
        for own, theirs in zip(repeats, base, strict=True):  # within a repeat, which one busy moment disturbs alike
            faster.append(statistics.median(theirs["seconds"]) / statistics.median(own["seconds"]))
            sooner.append(theirs["first"] / own["first"])
            share.append(own["megabytes"] / theirs["megabytes"])
        lines.append(
            f"| {name} | {spread([1000 * x for x in warm], 0)} ms | {spread(faster, 1)} | {spread(first, 2)} s | "
            f"{spread(sooner, 1)} | {spread(memory, 0)} MB | {spread(share, 2)} |"
        )
    return "\n".join(lines)


def _stages(stages: dict[str, Any]) -> str:
    lines = ["| stage of this service | milliseconds a photo |", "| --- | --- |"]
    lines += [f"| {name} | {spread([1000 * x for x in times], 2)} |" for name, times in stages["seconds"].items()]
    lines += [f"| settling an upload: {name}, by moto | {1000 * x:.2f} |" for name, x in stages["service"].items()]
    lines += [
        f"| an upload, {way}, by moto | {spread([1000 * x for x in times], 0)} |"
        for way, times in stages["afar"].items()
    ]
    return "\n".join(lines)


def _limits(results: dict[str, Any]) -> str:
    stages = results["stages"]
    library, rate = max(stages["multiply_adds_a_second"].items(), key=lambda item: item[1])
    least = stages["encoder_multiply_adds"] / rate
    whole, encoder = (statistics.median(stages["seconds"][name]) for name in ("all, one by one", "encoder"))
    large, small = stages["sizes"]["12 megapixels"], stages["sizes"]["0.3 megapixels"]
    lines = [
        f"- The encoder has {stages['encoder_multiply_adds'] / 1e6:.0f} M multiply-adds; at the best rate here, "
        f"{rate / 1e9:.0f} G a second ({library}'s matrix product), they would take {1000 * least:.1f} ms. It takes "
        f"{encoder / least:.2f} times that, a photo from file to sentence {whole / least:.2f} times.",
        f"- A JPEG of 12 megapixels takes {1000 * large:.0f} ms, one of 0.3 {1000 * small:.0f}: "
        f"{large / small:.2f} times.",
    ]
    if results["emulator"]:
        init, first, second = (
            spread([1000 * start[key] for start in results["emulator"]], 0) for key in ("init", "first", "second")
        )
        lines.append(
            f"- In Lambda's runtime interface emulator: {init} ms to start, {first} from the emulator's own start "
            f"to the first answer, {second} for the second."
        )
    lines += [f"- {split}: CIDEr {scores['CIDEr']}." for split, scores in results["quality"].items()]
    return "\n".join(lines)


def _memory(sizes: list[dict[str, Any]]) -> str:
    return (
        f"{memory.table(sizes)}\n\n"
        f"That is what Lambda takes for the work itself: waiting for S3 and DynamoDB, and what they take, come on top "
        f"(infra/RUNBOOK.md). A managed captioning API takes ${1_000_000 * MANAGED_CAPTION:,.0f} for a million."
    )


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and the least and the most where there are several."""
    said = f"{statistics.median(values):.{digits}f}"
    return said if len(values) == 1 else f"{said} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def plot(results: dict[str, Any]) -> str:
    """An SVG: milliseconds a photo of each subject, on a logarithmic scale."""
    left, width, row = 330, 460, 34
    rows = {
        name: 1000 * statistics.median([statistics.median(run["seconds"]) for run in repeats])
        for name, repeats in results["subjects"].items()
    }
    height = row * len(rows) + 40
    ticks = [10**power for power in range(1, 5) if 10**power < 3 * max(rows.values())]
    most = max(*rows.values(), ticks[-1])

    def place(milliseconds: float) -> float:
        from math import log

        return left + width * log(max(milliseconds, 5) / 5) / log(most / 5)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 70} {height}" font-family="sans-serif" '
        'font-size="14" role="img"><title>Milliseconds a photo on one core, warm</title>'
        f'<rect width="100%" height="100%" fill="#fff"/>'
    ]
    for tick in ticks:
        parts.append(
            f'<path d="M{place(tick):.0f} 10V{height - 30}" stroke="#ddd"/>'
            f'<text x="{place(tick):.0f}" y="{height - 12}" text-anchor="middle" fill="#555">{tick} ms</text>'
        )
    for at, (name, milliseconds) in enumerate(rows.items()):
        top, colour = 10 + at * row, "#0a6" if not at else "#888"
        parts.append(
            f'<text x="{left - 8}" y="{top + 20}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{top + 5}" width="{place(milliseconds) - left:.0f}" height="{row - 12}" '
            f'fill="{colour}"/>'
            f'<text x="{place(milliseconds) + 6:.0f}" y="{top + 20}">{milliseconds:.0f}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
