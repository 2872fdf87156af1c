"""The function as Lambda runs it, without Docker: Lambda's runtime client inside its runtime interface emulator.

The emulator is a program for Linux in aws-sam-cli's wheel. It starts the function at the first event, and anew after
a timeout. Unlike on Lambda, that start counts against the timeout.
"""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

ROOT = Path(__file__).parents[1]
HANDLER = "function.app.lambda_handler"


@dataclass(frozen=True)
class Emulator:
    """One function instance; it takes one event at a time."""

    url: str
    log_file: Path

    def invoke(self, event: object) -> Any:
        """The function's answer to the event, or Lambda's: an error as JSON, a timeout as text."""
        request = Request(self.url, json.dumps(event).encode(), {"Content-Type": "application/json"})
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=120) as response:
                answer = response.read().decode()
        except HTTPError as error:  # the function's process has ended
            answer = error.read().decode()
        try:
            return json.loads(answer)
        except ValueError:
            return answer

    def log(self) -> str:
        """What the function and the emulator have said so far."""
        return self.log_file.read_text()

    def starts(self) -> list[float]:
        """How long each start of the function took before it could take an event, in milliseconds."""
        return [float(found) for found in re.findall(r"INIT REPORT\(durationMs: ([\d.]+)\)", self.log())]


def find_emulator() -> Path | None:
    """The emulator for this machine's processor, if aws-sam-cli is in .venv-sam and this is Linux."""
    processor = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    found = (ROOT / ".venv-sam").glob(f"lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{processor}")
    return next(found, None) if sys.platform == "linux" else None


@contextmanager
def emulate(program: Path, environment: Mapping[str, str], timeout: int = 60) -> Iterator[Emulator]:
    """Runs the function in this Python, with this environment and a timeout in seconds, on loopback."""
    with ExitStack() as held, tempfile.TemporaryDirectory() as folder:
        ports = [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
        held.close()  # they were free a moment ago: the emulator cannot be given any that is
        emulator, runtime = (f"127.0.0.1:{port}" for port in ports)
        log_file = Path(folder) / "log"
        addresses = ["--runtime-interface-emulator-address", emulator, "--runtime-api-address", runtime]
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                # setpriv: it ends even where this process is killed.
                [
                    "setpriv",
                    "--pdeathsig",
                    "TERM",
                    str(program),
                    *addresses,
                    sys.executable,
                    "-m",
                    "awslambdaric",
                    HANDLER,
                ],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_for(ports[0], process)
            yield Emulator(f"http://{emulator}/2015-03-31/functions/function/invocations", log_file)
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"the emulator ended with {process.returncode}")
