"""`make soak`: nothing lost, nothing twice, while all goes wrong that can.

People upload, replace and delete photos; the queue brings their events twice, late and in any order; S3 and DynamoDB
throttle and fail, before and after they have done what was asked; workers are killed in the middle. At the end every
object that is there must have exactly the caption of its bytes, in the table and on the object, no other record may
live, and the dead letters must be those that nobody can answer, each with its reason in the log.

S3, SQS and DynamoDB are moto's, in this process, behind clients that add S3's conditions, which moto lacks, and the
faults. Environment: UPLOADS (default: 3000), SEED (default: 1).
"""

import io
import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from numpy.typing import NDArray
from PIL import Image

from function import app
from function.captioner import Caption
from function.objects import Service, describe
from function.records import Records
from infra.local import keep_local, local_aws
from infra.template import Stack, create_stack

WORKERS, UPLOADERS = 4, 2
CROWD = 100  # messages that may wait; moto's queue is slow where many do
HIDDEN = 2  # seconds until a message that nobody has dealt with comes again
TRIES = 5  # of a message, as in template.yaml
SILENCE = 300  # seconds without an end in which the whole has failed
FAULTS = {"throttled": 0.02, "failed": 0.01, "failed after it was done": 0.01, "killed": 0.004, "killed after": 0.004}
FORBIDDEN = "forbidden/"  # what is below it nobody may read
Handler = Callable[[object, Service], Any]


class Killed(BaseException):
    """The worker is gone; nothing after this runs."""


class SoakCaptioner:
    """A caption that only these pixels have, at no cost."""

    name = "soak"
    image_size = (8, 8)
    inferences = 0

    def caption(self, pixels: NDArray[Any], beams: int | None = None) -> list[list[Caption]]:
        self.inferences += 1
        return [[Caption(f"photo {pixels[0].tobytes().hex()[:24]}", -1.0, ())]]


@dataclass
class Faulty:
    """A client of S3 or DynamoDB whose calls fail, or kill who calls, as often as FAULTS says."""

    client: Any
    chance: random.Random
    counts: Counter[str]
    on: threading.Event
    locks: Mapping[str, Any] | None = None  # by key: S3 does one thing at a time with an object, moto does not

    def __getattr__(self, operation: str) -> Any:
        call = getattr(self.client, operation)
        if not callable(call):
            return call

        def tried(**arguments: Any) -> Any:
            key = arguments.get("Key", "")  # DynamoDB's is no string
            if isinstance(key, str) and key.startswith(FORBIDDEN):
                raise _error(403, "AccessDenied", operation)
            fault = self._fault()
            if fault:
                self.counts[fault] += 1
            if fault == "throttled":
                raise _error(503, "SlowDown", operation)
            if fault == "failed":
                raise _error(500, "InternalError", operation)
            if fault == "killed":
                raise Killed
            with nullcontext() if self.locks is None else self.locks[key]:
                if operation == "copy_object":
                    self._keep_conditions(arguments)
                answer = call(**arguments)
            if fault == "killed after":
                raise Killed
            if fault:
                raise _error(500, "InternalError", operation)
            return answer

        return tried

    def _fault(self) -> str | None:
        if not self.on.is_set():
            return None
        at = self.chance.random()
        for fault, share in FAULTS.items():
            if at < share:
                return fault
            at -= share
        return None

    def _keep_conditions(self, arguments: Mapping[str, Any]) -> None:
        """An object is only copied onto itself here, so both conditions are of the same object."""
        try:
            held = self.client.head_object(Bucket=arguments["Bucket"], Key=arguments["Key"])["ETag"]
        except ClientError as error:
            raise _error(404, "NoSuchKey", "CopyObject") from error
        if {arguments["CopySourceIfMatch"], arguments["IfMatch"]} != {held}:
            raise _error(412, "PreconditionFailed", "CopyObject")


class Reasons(logging.Handler):
    """The log's errors, by the id of their message."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.of: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if identifier := getattr(record, "message_id", None):
            self.of[identifier] = record.getMessage()


class Soak:
    """One run; `problems` is what it found."""

    def __init__(self, endpoint: str, uploads: int, seed: int, handler: Handler) -> None:
        # Patient, since moto itself fails now and then where many call it; the faults come on top, and are not retried.
        config = Config(max_pool_connections=20, retries={"total_max_attempts": 10, "mode": "standard"})
        clients: list[Any] = [
            boto3.client(name, endpoint_url=endpoint, config=config) for name in ("s3", "sqs", "dynamodb")
        ]
        self.s3, self.sqs, dynamodb = clients
        self.bucket, self.queue, table = create_stack(Stack(), self.s3, self.sqs, dynamodb)
        self.dead = self.sqs.get_queue_url(QueueName=Stack().ref("DeadLetters"))["QueueUrl"]
        self.uploads, self.seed, self.handler = uploads, seed, handler
        self.counts: Counter[str] = Counter()
        self.captioner = SoakCaptioner()
        self.locks: Mapping[str, Any] = defaultdict(threading.Lock)
        self.faults = threading.Event()
        self.keys = [f"album/{number}.jpg" for number in range(max(4, uploads // 6))]
        self.poison = [{"hello": "world"}, {"Records": []}, "no event", {"Records": [{"eventSource": "aws:s3"}]}]
        self.records = Records(dynamodb, table)
        self.reasons = Reasons()

    def run(self) -> list[str]:
        """Runs it to its end; what is wrong then."""
        logger = logging.getLogger("function")
        handlers, logger.handlers = logger.handlers, [self.reasons]
        ending = threading.Event()
        workers = [threading.Thread(target=self._work, args=(number, ending)) for number in range(WORKERS)]
        uploaders = [threading.Thread(target=self._upload, args=(number,)) for number in range(UPLOADERS)]
        try:
            self.faults.set()
            for thread in (*workers, *uploaders):
                thread.start()
            for thread in uploaders:
                thread.join()
            self._settle_down("the queue while things fail")
            self.faults.clear()
            self._redrive()
            self._settle_down("the queue after the dead letters were put back")
            return self._check()
        except TimeoutError as error:
            return [str(error)]
        finally:
            ending.set()
            for thread in workers:
                thread.join()
            logger.handlers = handlers

    def _upload(self, number: int) -> None:
        """What people do, and what else falls into the queue."""
        chance = random.Random(f"{self.seed} uploads {number}")
        for turn in range(self.uploads // UPLOADERS):
            while turn % 10 == 0 and self._waiting() > CROWD:
                time.sleep(0.1)
            key = chance.choice(self.keys)
            what = chance.choices(("photo", "removal", "no photo"), (85, 10, 5))[0]
            self.counts[what] += 1
            with self.locks[key]:
                if what == "removal":
                    self.s3.delete_object(Bucket=self.bucket, Key=key)
                else:
                    body = _photo(chance) if what == "photo" else chance.randbytes(100)
                    self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata={"turn": str(turn)})
        if number == 0:
            for oddity in self.poison:
                self.sqs.send_message(QueueUrl=self.queue, MessageBody=json.dumps(oddity))
            for name in ("a", "b"):
                self.s3.put_object(Bucket=self.bucket, Key=f"{FORBIDDEN}{name}.jpg", Body=_photo(chance))

    def _work(self, number: int, ending: threading.Event) -> None:
        """A worker, and the next one wherever one is killed."""
        chance = random.Random(f"{self.seed} work {number}")
        s3: Any = Faulty(self.s3, chance, self.counts, self.faults, self.locks)
        dynamodb: Any = Faulty(self.records.dynamodb, chance, self.counts, self.faults)
        service = Service(
            s3=s3,
            records=Records(dynamodb, self.records.table),
            captioner=self.captioner,  # type: ignore[arg-type]
            write_back="metadata",
        )
        while not ending.is_set():
            messages = self.sqs.receive_message(
                QueueUrl=self.queue, MaxNumberOfMessages=chance.randint(1, 10), VisibilityTimeout=HIDDEN
            ).get("Messages", [])
            if not messages:
                time.sleep(0.05)
                continue
            chance.shuffle(messages)
            if self.faults.is_set():
                self._repeat(messages, chance)
            try:
                answer = self.handler({"Records": [_record(message) for message in messages]}, service)
            except Killed:
                continue
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            self.counts["messages"] += len(messages)
            self.counts["messages that failed"] += len(failed)
            for message in messages:
                if message["MessageId"] not in failed:
                    self._done(message)

    def _done(self, message: Mapping[str, Any]) -> None:
        try:
            self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        except self.sqs.exceptions.ReceiptHandleIsInvalid:
            self.counts["messages dealt with too late"] += 1  # it has come again to somebody meanwhile

    def _repeat(self, messages: list[dict[str, Any]], chance: random.Random) -> None:
        """Some events come once more, later."""
        for message in messages:
            if chance.random() < 0.1 and _gist(message["Body"]) in self.keys:
                self.counts["events repeated"] += 1
                delay = chance.randint(0, 3)
                self.sqs.send_message(QueueUrl=self.queue, MessageBody=message["Body"], DelaySeconds=delay)

    def _redrive(self) -> None:
        """What a person does once the cause is gone."""
        for message in self._take_all(self.dead):
            self.counts["dead letters put back"] += 1
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=message["Body"])

    def _settle_down(self, what: str) -> None:
        end = time.monotonic() + SILENCE
        while time.monotonic() < end:
            if not self._waiting():
                return
            time.sleep(0.2)
        raise TimeoutError(f"{what} is not empty after {SILENCE} s: {self._waiting()} messages")

    def _waiting(self) -> int:
        """Messages that nobody is done with: visible, hidden or delayed."""
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        left = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return sum(int(number) for number in left.values())

    def _take_all(self, queue: str) -> list[dict[str, Any]]:
        found = []
        while messages := self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            found += messages
        return found

    def _check(self) -> list[str]:
        problems = [problem for key in self.keys for problem in self._check_key(key)]
        table = self.records.dynamodb.scan(TableName=self.records.table, ProjectionExpression="image")["Items"]
        strangers = {item["image"]["S"] for item in table} - {f"{self.bucket}/{key}" for key in self.keys}
        problems += [f"a record of {image}, which nobody uploaded" for image in sorted(strangers)]
        return problems + self._check_dead_letters()

    def _check_key(self, key: str) -> list[str]:
        """What is wrong with the record and the metadata of a key."""
        record = self.records.read(f"{self.bucket}/{key}")
        try:
            held = self.s3.get_object(Bucket=self.bucket, Key=key)
        except ClientError:
            lives = record is not None and record.status != "deleted"
            return [f"{key} is gone, its record is {record.status}"] if record and lives else []
        self.counts["objects at the end"] += 1
        if record is None:
            return [f"{key} has no record"]
        wanted = describe(held["Body"].read(), self.captioner)  # type: ignore[arg-type]
        said = {name: getattr(record, name) for name in ("status", "caption", "sha256")}
        problems = [
            f"{key}: its record's {name} is {value!r}, its bytes say {wanted.get(name)!r}"
            for name, value in said.items()
            if value != wanted.get(name)
        ]
        if record.etag != held["ETag"].strip('"'):
            problems.append(f"{key}: its record is of another ETag")
        labels = {name: value for name, value in held["Metadata"].items() if name.startswith("caption")}
        right = {"caption": record.caption, "caption-model": "soak", "caption-source": record.sha256}
        if record.status == "captioned" and labels != right:
            problems.append(f"{key}: its metadata say {labels}")
        if "turn" not in held["Metadata"]:
            problems.append(f"{key}: its own metadata are lost")
        return problems

    def _check_dead_letters(self) -> list[str]:
        dead = self._take_all(self.dead)
        self.counts["dead letters at the end"] = len(dead)
        found = Counter(_gist(message["Body"]) for message in dead)
        expected = Counter(
            [_gist(json.dumps(body)) for body in self.poison] + [f"{FORBIDDEN}{name}.jpg" for name in "ab"]
        )
        problems = [f"not in the dead letters: {gist}" for gist in (expected - found).elements()]
        problems += [f"should be no dead letter: {gist}" for gist in (found - expected).elements()]
        problems += [
            f"the log has no reason under {message['MessageId']}"
            for message in dead
            if not self.reasons.of.get(message["MessageId"], "").startswith(f"message {message['MessageId']}: ")
        ]
        return problems


def soak(uploads: int, seed: int, handler: Handler = app.answer) -> tuple[list[str], dict[str, float]]:
    """Runs it with this many uploads; what is wrong at the end, and what happened how often."""
    with local_aws() as endpoint:
        keep_local(os.environ, endpoint, "us-east-1")
        # Servers of a process share what they hold.
        urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        began = time.monotonic()
        run = Soak(endpoint, uploads, seed, handler)
        problems = run.run()
        return problems, {**run.counts, "captions made": run.captioner.inferences, "seconds": time.monotonic() - began}


def _record(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"messageId": message["MessageId"], "body": message["Body"], "eventSource": "aws:sqs"}


def _gist(body: str) -> str:
    """The key that an event is of, or else the body."""
    try:
        return str(json.loads(body)["Records"][0]["s3"]["object"]["key"]).replace("%2F", "/")
    except (KeyError, IndexError, TypeError):
        return body


def _photo(chance: random.Random) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (8, 8), chance.randbytes(192)).save(file, "PNG")
    return file.getvalue()


def _error(status: int, code: str, operation: str) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "injected"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)  # type: ignore[arg-type]


def main(environment: Mapping[str, str]) -> int:
    """Runs it and prints what happened; exit status 1 if anything is wrong."""
    problems, counts = soak(int(environment.get("UPLOADS", "3000")), int(environment.get("SEED", "1")))
    for what, count in counts.items():
        print(f"{what:<26} {count:>8,.0f}")
    print(f"\n{len(problems)} wrong" if problems else "\nnothing lost, nothing twice")
    for problem in problems[:50]:
        print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
