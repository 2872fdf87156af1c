"""A WSGI application on loopback, in a thread of this process."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server


@contextmanager
def serving(
    listening: socket.socket, application: Callable[..., Any], request_handler: type[WSGIRequestHandler]
) -> Iterator[str]:
    """Serves the application on this socket, which it closes; its URL."""
    with listening:
        host, port = listening.getsockname()
        server = make_server(
            host, port, application, threaded=True, request_handler=request_handler, fd=listening.fileno()
        )
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.shutdown()
        server.server_close()
