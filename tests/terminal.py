"""What a test that presses Ctrl-C starts its process with."""

import signal


def listen_to_control_c() -> None:
    """A `preexec_fn`: as at a terminal. What a shell starts in the background ignores SIGINT, and so its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
