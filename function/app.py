"""The Lambda handler: which event is it, who answers.

Environment: TABLE (the records' table), WRITE_BACK (`metadata`, `annotation` or `none`), RETENTION_DAYS (of records;
default: for ever), EVENT_BUS (where captions and rejections are announced; default: nowhere), BUNDLE (a model folder
instead of the one that ships); what HTTP requests need is in function/api.py, what logs and metrics take in
function/telemetry.py. boto3 reads the rest of its own.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from function import telemetry
from function.captioner import load_captioner
from function.events import (
    BatchJob,
    BatchTask,
    DirectImage,
    DirectObject,
    HttpRequest,
    Notification,
    ObjectName,
    QueueBatch,
    read_event,
    read_message,
)
from function.objects import ObjectUnavailable, Service, WriteBack, describe, settle
from function.records import Record, Records, as_json
from function.telemetry import logger as log
from function.together import Together

# A call that hangs must fail, and be tried again, well within the function's timeout.
PATIENCE = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4})

# Links to photos are signed by version 4, the only one that works everywhere, and lead to the bucket in its own region.
SIGNING = Config(
    signature_version="s3v4", s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"}
)

LONGEST_RESULT = 1000  # characters, in the report of S3 Batch Operations

# Messages at a time, most of which wait for S3 or DynamoDB: a batch of the template's queue, and boto3's connections.
THREADS = 10

T = TypeVar("T")
R = TypeVar("R")


@log.inject_lambda_context(log_event=False)  # an event may hold a photo
def lambda_handler(event: object, context: object) -> Any:
    """Answers one event; see `answer`. Of Lambda's `context`, each line of the log has the request's id."""
    try:
        return answer(event, deployed_service())
    finally:
        telemetry.flush()


@cache
def deployed_service() -> Service:
    """What the environment says to answer with. Raises BundleError; KeyError where a variable is missing."""
    return Service(
        s3=boto3.client("s3", config=PATIENCE.merge(SIGNING)),
        records=Records(boto3.client("dynamodb", config=PATIENCE), os.environ["TABLE"]),
        captioner=Together(load_captioner()),
        write_back=_write_back(os.environ.get("WRITE_BACK", "metadata")),
        life=timedelta(days=int(days)) if (days := os.environ.get("RETENTION_DAYS")) else None,
        announce=_announcer(bus) if (bus := os.environ.get("EVENT_BUS")) else None,
        count=telemetry.count,
        measure=telemetry.measure,
    )


def _write_back(text: str) -> WriteBack:
    match text:
        case "metadata" | "annotation" | "none":
            return text
    raise ValueError(f"WRITE_BACK={text}: expected metadata, annotation or none")


def _announcer(bus: str) -> Callable[[Record], None]:
    """Puts an event on a bus for others to build on. One that cannot be put is logged; the caption stands."""
    events = boto3.client("events", config=PATIENCE)

    def announce(record: Record) -> None:
        entry = {
            "EventBusName": bus,
            "Source": "captions",
            "DetailType": f"Photo {record.status.title()}",
            "Detail": json.dumps(as_json(record)),
        }
        try:
            answer = events.put_events(Entries=[entry])
            if answer["FailedEntryCount"]:
                log.error("%s is not announced on %s: %s", record.image, bus, answer["Entries"][0])
        except Exception as error:
            log.error("%s is not announced on %s: %s", record.image, bus, error)

    return announce


def answer(event: object, service: Service) -> Any:
    """The answer to an event, ready for JSON: a record, a description, the failed messages, or None.

    Raises UnknownEvent for a shape that nobody answers, and whatever keeps an object from being settled, so
    that the event is tried again.
    """
    match read_event(event):
        case QueueBatch(messages):
            turns: Turns = defaultdict(Lock)
            done = _at_once(lambda message: _answer_message(*message, service, turns), messages)
            return {
                "batchItemFailures": [
                    {"itemIdentifier": identifier}
                    for (identifier, _), well in zip(messages, done, strict=True)
                    if not well
                ]
            }
        case Notification(objects):
            settle_all(objects, service, defaultdict(Lock))
            return None
        case BatchJob(schema, invocation, tasks):
            return {
                "invocationSchemaVersion": schema,
                "treatMissingKeysAs": "TemporaryFailure",
                "invocationId": invocation,
                "results": _at_once(lambda task: _answer_task(task, service), tasks),
            }
        case HttpRequest(request):
            from function.api import deployed_site, respond  # here, since photos from S3 must not wait for this

            with telemetry.correlated(request["requestContext"].get("requestId")):
                return respond(request, service, deployed_site())
        case DirectObject(name):
            return as_json(settle(name, service))
        case DirectImage(data):
            return describe(data, service.captioner, measure=service.measure)


Turns = defaultdict[ObjectName, Lock]  # two that settle one object at once would only be in each other's way


def settle_all(names: tuple[ObjectName, ...], service: Service, turns: Turns) -> None:
    """Settles every object, and only then raises what went wrong with some."""
    errors = []
    for name in names:
        try:
            with turns[name]:
                record = settle(name, service)
        except Exception as error:
            errors.append(error)
        else:
            _log(name, record)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(names)} objects", errors)


def _at_once(act: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`act` on each, in threads: while some wait for S3 and DynamoDB, others decode and caption."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(act, items))


def _answer_message(identifier: str, body: str, service: Service, turns: Turns) -> bool:
    """Whether the message is done with; if not, the queue brings it again, then to the dead letters."""
    with telemetry.correlated(identifier):
        try:
            settle_all(read_message(body).objects, service, turns)
        except Exception as error:
            causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
            service.measure("Failed", len(causes))
            reason = "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
            log.error("message %s: %s", identifier, reason, exc_info=error, extra={"message_id": identifier})
            return False
    return True


def _answer_task(task: BatchTask, service: Service) -> dict[str, str]:
    """The result of a task of S3 Batch Operations, which gives a job up when too many of its tasks have failed.

    So a photo that is rejected, or gone since the manifest was made, has succeeded.
    """
    with telemetry.correlated(task.identifier):
        try:
            record = settle(task.object, service)
        except Exception as error:
            service.measure("Failed", 1)
            refused = isinstance(error, ObjectUnavailable) and error.refused
            code = "PermanentFailure" if refused else "TemporaryFailure"
            said = f"{type(error).__name__}: {error}"
            log.error("task %s: %s", task.identifier, said, exc_info=error, extra={"task_id": task.identifier})
        else:
            code, said = "Succeeded", f"{record.status}: {record.caption or record.reason or ''}"
            _log(task.object, record)
    return {"taskId": task.identifier, "resultCode": code, "resultString": said[:LONGEST_RESULT]}


def _log(name: ObjectName, record: Record) -> None:
    log.info(
        "%s is %s",
        name,
        record.status,
        extra={"image": record.image, "reason": record.reason, "model": record.model, "confidence": record.confidence},
    )
