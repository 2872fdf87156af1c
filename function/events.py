"""An event -> what is asked.

Events are hints: whether an S3 notification tells of an upload or of a removal is not looked at, because only
the bucket knows what is there now. So all that a notification asks is to look at its keys again.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus


@dataclass(frozen=True)
class ObjectName:
    """A key in a bucket, decoded: what `get_object` takes."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Notification:
    """S3 says that something happened to these objects. None for `s3:TestEvent`."""

    objects: tuple[ObjectName, ...]


@dataclass(frozen=True)
class QueueBatch:
    """Messages from SQS: each message's id, and its body, not yet read: one that is malformed fails alone."""

    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BatchTask:
    """An object that S3 Batch Operations sweeps, and the id that its result goes by."""

    identifier: str
    object: ObjectName


@dataclass(frozen=True)
class BatchJob:
    """Tasks of S3 Batch Operations; the answer repeats the schema's version and the invocation's id."""

    schema: str
    invocation: str
    tasks: tuple[BatchTask, ...]


@dataclass(frozen=True)
class DirectObject:
    """Somebody wants the record of this object."""

    object: ObjectName


@dataclass(frozen=True)
class DirectImage:
    """Somebody wants these bytes captioned, and nothing stored."""

    data: bytes


@dataclass(frozen=True)
class HttpRequest:
    """A request to the HTTP API, as API Gateway words it."""

    event: Any


Ask = HttpRequest | Notification | QueueBatch | BatchJob | DirectObject | DirectImage


class UnknownEvent(ValueError):
    """An event of a shape that nobody here answers; the message says what was expected, and what came."""


def read_event(event: object) -> Ask:
    """What a Lambda event asks. Raises UnknownEvent, whose message repeats names of fields, no values."""
    match event:
        case {"Records": [{"eventSource": "aws:sqs"}, *_] as messages}:
            return QueueBatch(tuple(_message(message) for message in messages))
        case (
            {"Records": [{"eventSource": "aws:s3"}, *_]} | {"Event": "s3:TestEvent"} | {"source": "aws.s3", "detail": _}
        ):
            return read_notification(event)
        case {"invocationSchemaVersion": str(schema), "invocationId": str(invocation), "tasks": [_, *_] as tasks}:
            return BatchJob(schema, invocation, tuple(_task(task) for task in tasks))
        case {"version": "2.0", "rawPath": str(), "requestContext": {"http": {"method": str()}}}:
            return HttpRequest(event)
        case {"bucket": str(bucket), "key": str(key)} if bucket and key:
            return DirectObject(ObjectName(bucket, key))
        case {"image": str(image)}:
            return DirectImage(_base64(image))
    raise UnknownEvent(
        "expected an S3 notification, a batch of them from SQS, an EventBridge event of S3, tasks of S3 Batch "
        'Operations, a request of an HTTP API (2.0), {"bucket": …, "key": …} or {"image": "<base64>"}; '
        f"got {_shape(event)}"
    )


def read_notification(event: object) -> Notification:
    """The objects that an S3 notification, or what S3 sends through EventBridge, names.

    A notification's keys are form-encoded (`a+b%C3%A9.jpg` is `a bé.jpg`), EventBridge's are not; see
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html and ev-events.html
    Raises UnknownEvent.
    """
    match event:
        case {"source": "aws.s3", "detail": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}}:
            return Notification((ObjectName(bucket, key),))
        case {"Event": "s3:TestEvent"}:
            return Notification(())
        case {"Records": [_, *_] as records}:
            return Notification(tuple(_object(record) for record in records))
    raise UnknownEvent(f"expected an S3 notification; got {_shape(event)}")


def read_message(body: str) -> Notification:
    """The S3 notification in the body of an SQS message, in SNS's envelope or not. Raises UnknownEvent."""
    try:
        event = json.loads(body)
    except ValueError as error:
        raise UnknownEvent("expected an S3 notification in the message's body; got no JSON") from error
    match event:
        case {"Type": "Notification", "TopicArn": _, "Message": str(message)}:
            return read_message(message)
    return read_notification(event)


def _message(message: object) -> tuple[str, str]:
    match message:
        case {"eventSource": "aws:sqs", "messageId": str(identifier), "body": str(body)}:
            return identifier, body
    raise UnknownEvent(f"expected a message from SQS with messageId and body; got {_shape(message)}")


def _object(record: object) -> ObjectName:
    match record:
        case {"eventSource": "aws:s3", "s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}}:
            return ObjectName(bucket, unquote_plus(key))
    raise UnknownEvent(f"expected s3.bucket.name and s3.object.key in an S3 record; got {_shape(record)}")


def _task(task: object) -> BatchTask:
    """Schema 1.0 names the bucket by its ARN, 2.0 by its name; the keys are form-encoded, as in the manifest.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html
    """
    match task:
        case {"taskId": str(identifier), "s3Key": str(key), "s3Bucket": str(bucket)}:
            return BatchTask(identifier, ObjectName(bucket, unquote_plus(key)))
        case {"taskId": str(identifier), "s3Key": str(key), "s3BucketArn": str(arn)}:
            return BatchTask(identifier, ObjectName(arn.rpartition(":")[2], unquote_plus(key)))
    raise UnknownEvent(f"expected taskId, s3Key and s3Bucket or s3BucketArn in a task; got {_shape(task)}")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnknownEvent(f"expected base64 in image: {error}") from error


def _shape(event: object) -> str:
    if isinstance(event, Mapping):
        names: list[Any] = sorted(event, key=str)
        return f"an object with {', '.join(map(str, names[:8])) or 'no fields'}"
    return f"a {type(event).__name__}"
