"""`make bench`: this service beside what a user would pick instead, on one core, as a table and a plot.

Every subject is started anew in each repeat, all of them one after the other, so that a busy moment disturbs all alike.
What was measured is kept in `results.json`; README's figures are its own (`--table` prints them without measuring).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.bench import memory
from infra.bench.table import plot, tables
from infra.emulator import ROOT, emulate, find_emulator
from infra.template import Stack

RESULTS, PLOT = Path(__file__).with_name("results.json"), Path(__file__).with_name("plot.svg")
PHOTOS = sorted((ROOT / "events" / "photos").glob("*.jpg"))
# name -> (environment, module, what it is told, rounds over the photos)
SUBJECTS: dict[str, tuple[str, str, list[str], int]] = {
    "this service, 3 beams": (".venv", "infra.bench.service", [], 5),
    "the original's way: Keras, predict for each word": (".venv-convert", "infra.bench.original", ["loop"], 1),
    "the original's way, compiled by TensorFlow": (".venv-convert", "infra.bench.original", ["compiled"], 2),
    "ViT-GPT2, transformers": (".venv-bench", "infra.bench.transformers_models", ["vit-gpt2"], 1),
    "BLIP-base, transformers": (".venv-bench", "infra.bench.transformers_models", ["blip"], 1),
}


def main() -> None:
    """Measure, keep and show."""
    parser = argparse.ArgumentParser("python -m infra.bench", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="how often each subject is started")
    parser.add_argument("--table", action="store_true", help="show what was measured last")
    options = parser.parse_args()
    if not options.table:
        RESULTS.write_text(json.dumps(measure(options.repeats), indent=1) + "\n")
    results = json.loads(RESULTS.read_text())
    PLOT.write_text(plot(results))
    print(tables(results))


def measure(repeats: int) -> dict[str, Any]:
    """Everything that `results.json` holds; times in seconds."""
    service: list[str | Path] = [ROOT / ".venv" / "bin" / "python", "-m", "infra.bench.service", "3", *map(str, PHOTOS)]
    sizes = None
    if hasattr(os, "sched_setaffinity"):
        sizes = memory.measure(service, dict(os.environ), ROOT)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # and so for all that this starts
    subjects: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(repeats):
        for name, (environment, module, told, rounds) in SUBJECTS.items():
            if (ROOT / environment / "bin" / "python").exists():
                print(f"{repeat + 1} of {repeats}: {name} …", file=sys.stderr)
                subjects.setdefault(name, []).append(_run(environment, module, [*told, str(rounds)]))
    return {
        "machine": {
            "processor": _processor(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "photos": len(PHOTOS),
        "subjects": subjects,
        "stages": _run(".venv", "infra.bench.stages", ["15"]),
        "emulator": _emulated(repeats),
        "memory": sizes,
        "quality": json.loads((ROOT / "function" / "bundle" / "bundle.json").read_text())["metrics"],
    }


def _run(environment: str, module: str, arguments: list[str], photos: Sequence[Path] = PHOTOS) -> dict[str, Any]:
    done = subprocess.run(
        [ROOT / environment / "bin" / "python", "-m", module, *arguments, *photos],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "BEGAN": str(time.time())},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _emulated(repeats: int) -> list[dict[str, float]] | None:
    """Cold starts as Lambda's runtime interface emulator sees them; None where there is none."""
    program = find_emulator()
    if program is None:
        return None
    settings = Stack().properties("Captions")["Environment"]["Variables"]
    secrets = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
    event = json.loads((ROOT / "events" / "direct-image.json").read_text())
    starts = []
    for _ in range(repeats):
        began = time.perf_counter()
        with emulate(program, {**secrets, **settings}) as emulator:
            answer = emulator.invoke(event)
            answered = time.perf_counter() - began
            again = time.perf_counter()
            emulator.invoke(event)
            if "caption" not in answer:
                raise RuntimeError(f"the function answered {answer}")
            starts.append(
                {"init": emulator.starts()[0] / 1000, "first": answered, "second": time.perf_counter() - again}
            )
    return starts


def _processor() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
