"""`python -m infra.budget`: what a change may not make grow unseen, in counts that no busy machine changes.

`budget.json` holds them, and a test compares; `--write` takes what is true now as the new budget,
and `--imports` shows what the start is spent on.
"""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import onnx

from convert.graphs import multiply_adds
from infra.emulator import ROOT

BUDGET = Path(__file__).with_name("budget.json")
TOLERANCE = 0.02
# Measured by the image's own test, which can build it; a new figure is written by hand.
IMAGE, PACKED = "bytes of the image over its base", "bytes of the function's folder in the image, packed"
# Modules that are no part of Python, by their packages, once the function is ready for its first event.
MODULES = """
import collections, json, sys
from function.app import deployed_service
deployed_service()
names = [name.partition(".")[0] for name in sys.modules]
print(json.dumps(collections.Counter(name for name in names if name not in sys.stdlib_module_names)))
"""


def measure() -> dict[str, int]:
    """Name -> count: modules at start by package, bytes of what ships, multiply-adds of the graphs."""
    counts = {f"modules of {package} at start": count for package, count in sorted(_modules().items())}
    bundle = ROOT / "function" / "bundle"
    counts["bytes of the model's graphs"] = sum(file.stat().st_size for file in bundle.glob("*.onnx"))
    counts["bytes of the function's code and page"] = sum(
        file.stat().st_size
        for file in (ROOT / "function").rglob("*")
        if file.is_file() and bundle not in file.parents and file.suffix not in (".pyc", ".txt", ".in")
    )
    for name in ("encoder", "decoder"):
        counts[f"multiply-adds of one run of the {name}"] = multiply_adds(onnx.load(bundle / f"{name}.onnx"))
    return counts


def grown(budget: dict[str, int], counts: dict[str, int]) -> list[str]:
    """What is more than the budget by more than a fiftieth, and by how much; what the budget does not know is new."""
    return [
        f"{name}: {budget.get(name, 0):,} -> {count:,}"
        for name, count in counts.items()
        if count > budget.get(name, 0) * (1 + TOLERANCE)
    ]


def imports() -> str:
    """How long the function's imports take, by package, as Markdown; what a package imports is not its own.

    Beside it what they would take if those for HTTP and HEIC did not wait until they are needed.
    """
    now, everything = _import_times("function.app"), _import_times("function.app, function.api, pi_heif")
    rows = {"all": [list(chain(*found.values())) for found in (now, everything)]}
    for package, times in sorted(everything.items(), key=lambda item: -sum(item[1])):
        rows[package] = [now.get(package, []), times]
    lines = ["| package | at start | were nothing put off |", "| --- | --- | --- |"]
    for name, both in rows.items():
        said = (f"{sum(times) / 1000:.1f} ms, {len(times)} modules" for times in both)
        lines.append(f"| {name} | {' | '.join(said)} |")
    return "\n".join(lines)


def _import_times(modules: str) -> dict[str, list[int]]:
    """Package -> microseconds of each of its modules, without those that it imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {modules}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[int]] = {}
    for line in done.stderr.splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdecimal():
            package = name.strip().partition(".")[0]
            found.setdefault("Python's own" if package in sys.stdlib_module_names else package, []).append(int(own))
    return found


def _modules() -> dict[str, int]:
    environment = {"TABLE": "captions", "EVENT_BUS": "captions", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "-c", MODULES],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    counts = json.loads(done.stdout)
    return {package: count for package, count in counts.items() if not package.startswith("_")}


def main(arguments: list[str]) -> int:
    """Say what grew, or write what is, or show the imports."""
    if arguments == ["--imports"]:
        print(imports())
        return 0
    counts = measure()
    if arguments == ["--write"]:
        image = {name: count for name, count in json.loads(BUDGET.read_text()).items() if name in (IMAGE, PACKED)}
        BUDGET.write_text(json.dumps(counts | image, indent=1) + "\n")
        return 0
    more = grown(json.loads(BUDGET.read_text()), counts)
    print("\n".join(more) or "within the budget")
    return len(more) and 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
