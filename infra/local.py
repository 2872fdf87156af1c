"""The whole way on one machine: photos are uploaded to a bucket, and their captions appear one by one.

S3, SQS and DynamoDB are moto's, on loopback; bucket, queue, notification and table are made from
template.yaml; the events that S3 puts on the queue go to the real `lambda_handler`, as Lambda's poller would
hand them over, and so do the requests that a browser sends to the page and the API, as API Gateway would. All of it
lives in this one process, so nothing is left when it ends, however it ends.

Environment: PHOTOS, one path or several as a shell would read them (default: the sample photos); ONCE, to
stop after the captions; PORT, of the local AWS (default: any that is free).
"""

import logging
import mimetypes
import os
import shlex
import socket
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

from function.app import deployed_service, lambda_handler
from function.bundles import BundleError
from function.events import ObjectName, read_message
from function.objects import Service
from function.records import Record
from infra.adopt_bucket import allow_page
from infra.gateway import serve
from infra.loopback import serving
from infra.template import Stack, create_stack

CONTEXT = SimpleNamespace(  # what a call of Lambda comes with
    function_name="captions", memory_limit_in_mb=1769, invoked_function_arn="arn:local", aws_request_id="local"
)
SAMPLES = Path(__file__).parents[1] / "events" / "photos"
SUFFIXES = {".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class CannotStart(Exception):
    """Nothing was begun; the message is one line for the person at the terminal."""


def main(environment: MutableMapping[str, str]) -> int:
    """Runs it all. Exit status: 0 if every photo has its caption, 1 if not, 2 if nothing was begun."""
    try:
        photos = find_photos(environment.get("PHOTOS", ""))
        port = _port(environment.get("PORT", ""))
        stack = Stack()
        with local_aws(port) as endpoint:
            environment.update(stack.properties("Captions")["Environment"]["Variables"], AUTH="LOCAL")
            environment["POWERTOOLS_METRICS_DISABLED"] = "true"
            keep_local(environment, endpoint, stack.region)
            return _run(photos, stack, endpoint, once=bool(environment.get("ONCE")))
    except (CannotStart, BundleError) as error:
        print(f"cannot start: {error}", flush=True)
        return 2


def find_photos(text: str) -> dict[str, Path]:
    """Key -> file, for PHOTOS: files as they are, and from folders what is named like a photo, at any depth.

    A key is the path below the folder that all have in common. Raises CannotStart.
    """
    if not text:
        paths = [SAMPLES]
    elif Path(text).expanduser().exists():  # one path, even with spaces in it
        paths = [Path(text).expanduser()]
    else:
        try:
            paths = [Path(word).expanduser() for word in shlex.split(text)]
        except ValueError as error:
            raise CannotStart(f"PHOTOS={text}: {error}") from error
    files = []
    for path in paths:
        if not path.exists():
            raise CannotStart(f"{path}: no such file or folder")
        found = sorted(_photos_in(path)) if path.is_dir() else [path]
        if not found:
            raise CannotStart(f"{path}: no photos in this folder ({', '.join(sorted(SUFFIXES))})")
        files += [file.absolute() for file in found]
    root = os.path.commonpath([file.parent for file in files])
    return {file.relative_to(root).as_posix(): file for file in files}


@contextmanager
def local_aws(port: int = 0) -> Iterator[str]:
    """moto's server on loopback, at this port or at one that is free; its URL. Raises CannotStart."""
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise CannotStart(f"port {port} on 127.0.0.1: {os.strerror(error.errno or 0)}") from error
    with serve_aws(listening) as url:
        yield url


@contextmanager
def serve_aws(listening: socket.socket) -> Iterator[str]:
    """moto's server on this socket, which it closes; its URL. All servers of a process have the same contents."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with serving(listening, DomainDispatcherApplication(create_backend_app), MotoRequestHandler) as url:
        yield url


def keep_local(environment: MutableMapping[str, str], endpoint: str, region: str) -> None:
    """Forgets a person's AWS profile, keys, endpoint and proxies: clients made from now on use `endpoint`."""
    for name in list(environment):
        if name.startswith("AWS_"):
            del environment[name]
    environment.update(
        AWS_ACCESS_KEY_ID="local",
        AWS_SECRET_ACCESS_KEY="local",
        AWS_DEFAULT_REGION=region,
        AWS_ENDPOINT_URL=endpoint,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        NO_PROXY="127.0.0.1,localhost",
        no_proxy="127.0.0.1,localhost",
    )


@dataclass
class Poller:
    """What Lambda's poller does for a queue: hands messages over, deletes those that are done with."""

    sqs: Any
    queue_url: str
    queue_arn: str
    region: str

    def deliver(self, wait: int = 0) -> list[str] | None:
        """Delivers a message, waiting up to `wait` seconds for one; None where there was none.

        Returns the bodies of those that the function is done with.
        """
        messages = self.sqs.receive_message(
            QueueUrl=self.queue_url, WaitTimeSeconds=wait, MessageSystemAttributeNames=["All"]
        ).get("Messages", [])
        if not messages:
            return None
        answer = lambda_handler({"Records": [self._record(message) for message in messages]}, CONTEXT)
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        done = []
        for message in messages:
            handle = {"QueueUrl": self.queue_url, "ReceiptHandle": message["ReceiptHandle"]}
            if message["MessageId"] in failed:  # nobody waits for minutes here: try again at once
                self.sqs.change_message_visibility(**handle, VisibilityTimeout=0)
            else:
                self.sqs.delete_message(**handle)
                done.append(message["Body"])
        return done

    def _record(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {},
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self.queue_arn,
            "awsRegion": self.region,
        }


@dataclass
class Screen:
    """What the person sees: one line for each photo, as its record lands."""

    width: int  # of the column of names
    shown: dict[str, str | None] = field(default_factory=dict)  # image -> when its record was made

    def show(self, record: Record, milliseconds: float) -> None:
        """A line for a record that was not shown before."""
        moment = record.captioned_at or record.status
        if self.shown.get(record.image) == moment:
            return
        self.shown[record.image] = moment
        text = (
            record.caption
            if record.status == "captioned"
            else ": ".join(part for part in (record.status, record.reason) if part)
        )
        self.line(record.image.split("/", 1)[1], f"{text}  ({milliseconds:.0f} ms)")

    def line(self, name: str, text: str) -> None:
        print(f"  {name:<{self.width}}  {text}", flush=True)


class Complaints(logging.Handler):
    """The function's errors, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"  ! {record.getMessage()}", flush=True)


def _run(photos: Mapping[str, Path], stack: Stack, endpoint: str, once: bool) -> int:
    clients: list[Any] = [boto3.client(name, endpoint_url=endpoint) for name in ("s3", "sqs", "dynamodb")]
    s3, sqs, dynamodb = clients
    bucket, queue, _ = create_stack(stack, s3, sqs, dynamodb)
    service = deployed_service()
    logging.getLogger("function").handlers = [Complaints(logging.ERROR)]  # instead of JSON
    poller = Poller(sqs, queue, stack.arn("Uploads"), stack.region)
    screen = Screen(min(40, max(map(len, photos))))

    print(
        f"Uploading to s3://{bucket} at {endpoint}, captions by {service.captioner.name}:",
        flush=True,
    )
    start = time.perf_counter()
    uploaded = [key for key, path in photos.items() if _upload(s3, bucket, key, path, screen)]
    while _deliver(poller, service, screen):
        pass
    captioned = [key for key in uploaded if is_captioned(service, ObjectName(bucket, key), screen)]
    print(
        f"{len(captioned)} of {len(photos)} photos have captions ({time.perf_counter() - start:.1f} s)",
        flush=True,
    )

    if not once:
        with serve(lambda event: lambda_handler(event, CONTEXT)) as api:
            s3.delete_bucket_cors(Bucket=bucket)  # moto takes only origins that all rules name
            allow_page(s3, bucket, api)
            _serve(poller, service, screen, bucket, endpoint, api, stack.region)
    return 0 if len(captioned) == len(photos) else 1


def _serve(poller: Poller, service: Service, screen: Screen, bucket: str, endpoint: str, api: str, region: str) -> None:
    print(
        f"\nThe page: {api}/\nThe API:  {api}/docs\n\n"
        "Upload more there or from another terminal; Ctrl-C to stop:\n"
        f"  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DEFAULT_REGION={region} \\\n"
        f"    aws --endpoint-url {endpoint} s3 cp photo.jpg s3://{bucket}/\n",
        flush=True,
    )
    try:
        while True:
            _deliver(poller, service, screen, wait=1)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)


def _upload(s3: Any, bucket: str, key: str, path: Path, screen: Screen) -> bool:
    try:
        data = path.read_bytes()
    except OSError as error:
        screen.line(key, f"cannot be read: {error.strerror}")
        return False
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    s3.put_object(Bucket=bucket, Key=key, Body=data, ContentType=content_type)
    return True


def _deliver(poller: Poller, service: Service, screen: Screen, wait: int = 0) -> bool:
    start = time.perf_counter()
    bodies = poller.deliver(wait)
    milliseconds = (time.perf_counter() - start) * 1000
    for body in bodies or []:
        for name in read_message(body).objects:
            if record := service.records.read(f"{name.bucket}/{name.key}"):
                screen.show(record, milliseconds)
    return bodies is not None


def is_captioned(service: Service, name: ObjectName, screen: Screen) -> bool:
    """Whether a photo ended as it should; says why not, where its own line has not."""
    record = service.records.read(f"{name.bucket}/{name.key}")
    if record is None:
        screen.line(name.key, "has no record")
    elif record.status == "captioned":
        held = service.s3.head_object(Bucket=name.bucket, Key=name.key)["Metadata"]
        if held.get("caption") and held.get("caption-source") == record.sha256:
            return True
        screen.line(name.key, "has no caption in its metadata" + (f": {record.reason}" if record.reason else ""))
    return False


def _photos_in(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            yield path


def _port(text: str) -> int:
    try:
        port = int(text or 0)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise CannotStart(f"PORT={text}: expected a number up to 65535")
    return port
