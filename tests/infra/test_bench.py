"""The benchmark's tables are made of what was measured, and README shows them."""

import json
import os
import sys

import pytest

from infra.bench import memory
from infra.bench.__main__ import RESULTS, ROOT, _run
from infra.bench.table import plot, tables
from infra.cost import photo_cost

MEASURED = json.loads(RESULTS.read_text())


def test_readme_shows_what_was_measured_last():
    assert tables(MEASURED) in (ROOT / "README.md").read_text()


def test_what_was_measured_is_of_the_bundle_that_ships():
    bundle = json.loads((ROOT / "function" / "bundle" / "bundle.json").read_text())
    assert (MEASURED["stages"]["model"], MEASURED["quality"]) == (bundle["name"], bundle["metrics"])


def test_ratios_are_taken_within_a_repeat():
    run = {"first": 1.0, "megabytes": 100.0, "said": ""}
    original = "the original's way: Keras, predict for each word"
    subjects = {
        "ours": [{**run, "seconds": [0.1, 0.1]}, {**run, "seconds": [0.2, 0.2]}],
        original: [{**run, "seconds": [1.0]}, {**run, "seconds": [2.0]}],
    }
    said = tables({**MEASURED, "subjects": subjects})
    assert "| ours | 150 (100 to 200) ms | 10.0 (10.0 to 10.0) |" in said


def test_a_subject_says_how_long_it_took_and_what_it_said():
    photo = ROOT / "events" / "photos" / "camera.jpg"
    found = _run(".venv", "infra.bench.service", ["2"], [photo])
    assert len(found["seconds"]) == 2
    assert 0 < min(found["seconds"]) < found["first"] < 60
    assert found["megabytes"] > 20
    assert found["said"].startswith("a man")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="one core can be chosen on Linux only")
def test_less_memory_is_less_processor():
    """Emulated: a program that counts for a while takes longer with a third of a core."""
    count = "import json, time; began = time.perf_counter(); sum(range(10**7)); took = time.perf_counter() - began"
    program = [sys.executable, "-c", f"{count}; print(json.dumps(dict(seconds=[took], first=took, megabytes=1)))"]
    seconds = {size["memory"]: size["photo"] for size in memory.measure(program, dict(os.environ), ROOT)}
    assert list(seconds) == [512, 1024, 1769, 3008]
    assert seconds[512] > 1.5 * seconds[1769]


def test_the_plot_names_every_subject():
    assert all(name.replace("'", "&#x27;") in plot(MEASURED) for name in MEASURED["subjects"])


def test_a_photo_costs_its_time_and_its_share_of_a_request():
    assert photo_cost(1024, 1000) == pytest.approx(0.0000166667 + 0.0000002)
    assert photo_cost(2048, 1000, photos_a_call=10) == pytest.approx(2 * 0.0000166667 + 0.00000002)
    with pytest.raises(ValueError, match="expected at least 1"):
        photo_cost(1024, 1, photos_a_call=0)
