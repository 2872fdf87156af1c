"""What every subject of the benchmark does: start, caption a photo, caption many, and say how long that took.

A subject is a program of its own in an environment of its own; `began` in its environment is when it was started.
Standard library only, for all of them import it.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

WORDS = 12  # of each caption of a model with random weights


def measure(load: Callable[[], Callable[[Path], str]]) -> None:
    """Times `load` and what it gives over the photos of the command line, `rounds` times; prints JSON."""
    rounds, *photos = sys.argv[1:]
    caption = load()
    said = caption(Path(photos[0]))
    first = time.time() - float(os.environ["BEGAN"])
    seconds = []
    for _ in range(int(rounds)):
        for photo in photos:
            began = time.perf_counter()
            caption(Path(photo))
            seconds.append(time.perf_counter() - began)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"first": first, "seconds": seconds, "megabytes": megabytes, "said": said}))
