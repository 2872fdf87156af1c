"""LocalStack's S3 and SQS on loopback, for tests: it keeps conditions, sends whole events and enforces forms' policies.

What version 4.8.1 lacks of S3 is added to clients by `complete`. It has an environment of its own, .venv-localstack.
"""

import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

from botocore.exceptions import ClientError

PYTHON = Path(__file__).parents[1] / ".venv-localstack" / "bin" / "python"
READY = 60  # seconds until it must answer


@contextmanager
def localstack(port: int, folder: Path) -> Iterator[str]:
    """LocalStack on this port of loopback, its files in this folder; its URL. Raises LookupError if not installed."""
    if not PYTHON.exists():
        raise LookupError("LocalStack is not installed: make .venv-localstack/run.stamp")
    own = {
        "DNS_ADDRESS": "0",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
        "EAGER_SERVICE_LOADING": "1",
        "SERVICES": "s3,sqs",
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "FILESYSTEM_ROOT": str(folder),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [str(PYTHON), "-m", "localstack.runtime.main"]
    if sys.platform == "linux":
        command = ["setpriv", "--pdeathsig", "TERM", *command]  # it ends even where this process is killed
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=inherited | own, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait()


def complete(s3: Any, sqs: Any) -> None:
    """Adds to these clients what S3 does and LocalStack 4.8.1 does not.

    CopyObject holds only if the object that it replaces still has the ETag of IfMatch; each event that comes from the
    queue has a greater sequencer than those before it.
    """
    s3.meta.events.register_last("before-call.s3.CopyObject", lambda params, **_: _check_destination(s3, params))
    numbers = itertools.count(1)

    def number(parsed: dict[str, Any], **_: Any) -> None:
        for message in parsed.get("Messages", ()):
            body = json.loads(message["Body"])
            for record in body.get("Records", ()):
                if "sequencer" in record["s3"]["object"]:
                    record["s3"]["object"]["sequencer"] = f"{next(numbers):016X}"
            message["Body"] = json.dumps(body)

    sqs.meta.events.register("after-call.sqs.ReceiveMessage", number)


def refusal(status: int, code: str, message: str = "") -> tuple[Any, dict[str, Any]]:
    """What a hook before a client's call returns so that the call fails like this and is not made."""
    answer = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0},
    }
    return SimpleNamespace(status_code=status), answer


def _check_destination(s3: Any, params: dict[str, Any]) -> Any:
    wanted = params["headers"].get("If-Match")
    if wanted is None:
        return None
    try:
        held = s3.head_object(**{name: params["context"]["input_params"][name] for name in ("Bucket", "Key")})["ETag"]
    except ClientError:
        return refusal(404, "NoSuchKey")
    return None if held == wanted else refusal(412, "PreconditionFailed")


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/_localstack/health", timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"LocalStack did not start: {log.read_text()[-2000:]}")
