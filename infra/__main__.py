"""`python -m infra`, or `make run`: the local stack. Ctrl-C ends it at any moment, imports included."""

import os
import signal
import sys
from typing import Any


def stop(*_: Any) -> None:
    """Ends it at once: while modules are read there is nothing to tidy up yet."""
    print("\nstopped", flush=True)
    os._exit(130)


# Extension modules make an ImportError of a KeyboardInterrupt; what a shell starts in the background ignores SIGINT.
signal.signal(signal.SIGINT, stop)
from infra.local import main  # noqa: E402

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    status = main(os.environ)
except KeyboardInterrupt:
    print("\nstopped", flush=True)
    status = 130
sys.exit(status)
