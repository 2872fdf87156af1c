"""`python -m infra`, or `make run`: the local stack. Ctrl-C ends it at any moment, imports included."""

import os
import signal
import sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
try:
    from infra.local import main

    status = main(os.environ)
except KeyboardInterrupt:
    print("\nstopped", flush=True)
    status = 130
sys.exit(status)
