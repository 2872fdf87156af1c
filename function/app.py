"""The Lambda handler: which event is it, who answers.

Environment: TABLE (the records' table), WRITE_BACK (`metadata` or `none`), BUNDLE (a model folder instead of
the one that ships). boto3 reads the rest of its own.
"""

import logging
import os
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from function.captioner import load_captioner
from function.events import (
    BatchJob,
    BatchTask,
    DirectImage,
    DirectObject,
    Notification,
    ObjectName,
    QueueBatch,
    read_event,
    read_message,
)
from function.objects import ObjectUnavailable, Service, describe, settle
from function.records import Records, as_json

log = logging.getLogger(__name__)
logging.getLogger("function").setLevel(logging.INFO)

# A call that hangs must fail, and be tried again, well within the function's timeout.
PATIENCE = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4})

LONGEST_RESULT = 1000  # characters, in the report of S3 Batch Operations


def lambda_handler(event: object, context: object) -> Any:
    """Answers one event; see `answer`. `context` is Lambda's, and is not used."""
    return answer(event, deployed_service())


@cache
def deployed_service() -> Service:
    """What the environment says to answer with. Raises BundleError; KeyError where a variable is missing."""
    return Service(
        s3=boto3.client("s3", config=PATIENCE),
        records=Records(boto3.client("dynamodb", config=PATIENCE), os.environ["TABLE"]),
        captioner=load_captioner(),
        write_back={"metadata": True, "none": False}[os.environ.get("WRITE_BACK", "metadata")],
    )


def answer(event: object, service: Service) -> Any:
    """The answer to an event, ready for JSON: a record, a description, the failed messages, or None.

    Raises UnknownEvent for a shape that nobody answers, and whatever keeps an object from being settled, so
    that the event is tried again.
    """
    match read_event(event):
        case QueueBatch(messages):
            return {
                "batchItemFailures": [
                    {"itemIdentifier": identifier}
                    for identifier, body in messages
                    if not _answer_message(identifier, body, service)
                ]
            }
        case Notification(objects):
            settle_all(objects, service)
            return None
        case BatchJob(schema, invocation, tasks):
            return {
                "invocationSchemaVersion": schema,
                "treatMissingKeysAs": "TemporaryFailure",
                "invocationId": invocation,
                "results": [_answer_task(task, service) for task in tasks],
            }
        case DirectObject(name):
            return as_json(settle(name, service))
        case DirectImage(data):
            return describe(data, service.captioner)


def settle_all(names: tuple[ObjectName, ...], service: Service) -> None:
    """Settles every object, and only then raises what went wrong with some."""
    errors = []
    for name in names:
        try:
            record = settle(name, service)
        except Exception as error:
            errors.append(error)
        else:
            log.info("%s is %s", name, record.status, extra={"image": record.image, "reason": record.reason})
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(names)} objects", errors)


def _answer_message(identifier: str, body: str, service: Service) -> bool:
    """Whether the message is done with; if not, the queue brings it again, then to the dead letters."""
    try:
        settle_all(read_message(body).objects, service)
    except Exception as error:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        reason = "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
        log.error("message %s: %s", identifier, reason, exc_info=error, extra={"message_id": identifier})
        return False
    return True


def _answer_task(task: BatchTask, service: Service) -> dict[str, str]:
    """The result of a task of S3 Batch Operations, which gives a job up when too many of its tasks have failed.

    So a photo that is rejected, or gone since the manifest was made, has succeeded.
    """
    try:
        record = settle(task.object, service)
    except Exception as error:
        refused = isinstance(error, ObjectUnavailable) and error.refused
        code = "PermanentFailure" if refused else "TemporaryFailure"
        said = f"{type(error).__name__}: {error}"
        log.error("task %s: %s", task.identifier, said, exc_info=error, extra={"task_id": task.identifier})
    else:
        code, said = "Succeeded", f"{record.status}: {record.caption or record.reason or ''}"
        log.info("%s is %s", task.object, record.status, extra={"image": record.image, "reason": record.reason})
    return {"taskId": task.identifier, "resultCode": code, "resultString": said[:LONGEST_RESULT]}
