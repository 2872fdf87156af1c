"""What Lambda's memory sizes would take and cost: their share of a processor, emulated by stopping and going on.

Lambda gives a function one vCPU for each 1,769 MB. Here the benchmark's program for this service is stopped (SIGSTOP)
for the rest of every 20 ms, on one core, or on two where the share is more than one. The times are this machine's.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from infra.cost import photo_cost

SIZES = (512, 1024, 1769, 3008)  # MB
VCPU = 1769  # MB
PERIOD = 0.02  # seconds


def measure(command: Sequence[str | Path], environment: dict[str, str], root: Path) -> list[dict[str, Any]]:
    """For each size, `command`'s own figures under its share of the processor."""
    found = []
    cores = sorted(os.sched_getaffinity(0))
    for memory in SIZES:
        share = memory / VCPU
        used = cores[-1:] if share <= 1 else cores[-2:]
        duty = min(1.0, share / len(used))
        process = subprocess.Popen(
            command,
            cwd=root,
            env={**environment, "BEGAN": str(time.time())},
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=partial(os.sched_setaffinity, 0, used),
        )
        while process.poll() is None:
            time.sleep(PERIOD * duty)
            if duty < 1:
                process.send_signal(signal.SIGSTOP)
                time.sleep(PERIOD * (1 - duty))
                process.send_signal(signal.SIGCONT)
        said = process.stdout.read() if process.stdout else ""
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}")
        run = json.loads(said.splitlines()[-1])
        found.append(
            {
                "memory": memory,
                "vcpus": share,
                "emulated": f"{len(used)} x {duty:.0%}",
                "first": run["first"],
                "photo": statistics.median(run["seconds"]),
                "megabytes": run["megabytes"],
            }
        )
        print(f"{memory} MB: {1000 * found[-1]['photo']:.0f} ms a photo", file=sys.stderr)
    return found


def table(sizes: list[dict[str, Any]]) -> str:
    """Times and dollars of each size, as Markdown."""
    lines = [
        "| memory | vCPUs, emulated as | a photo | first caption | a million photos, one a call | ten a call |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for size in sizes:
        one, ten = (1_000_000 * photo_cost(size["memory"], 1000 * size["photo"], batch) for batch in (1, 10))
        lines.append(
            f"| {size['memory']:,} MB | {size['vcpus']:.2f}, {size['emulated']} | {1000 * size['photo']:.0f} ms | "
            f"{size['first']:.2f} s | ${one:.2f} | ${ten:.2f} |"
        )
    return "\n".join(lines)
