"""What tests of the function stand on: HTTP to moto or LocalStack, with bucket, queue and table of template.yaml."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from botocore.exceptions import ClientError

from function.bundles import load_bundle
from function.captioner import Caption, Captioner
from function.objects import Service
from function.records import Records
from infra.local import keep_local, local_aws
from infra.localstack import complete, localstack, refusal
from infra.template import Stack, create_stack
from tests.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "events" / "photos"
ACCOUNT = "123456789012"  # of the stack


class CountingCaptioner(Captioner):
    """A real captioner that counts how often it is asked."""

    inferences = 0

    def caption(self, pixels: Any, beams: int | None = None) -> list[list[Caption]]:
        self.inferences += 1
        return super().caption(pixels, beams)


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with local_aws() as url:
        keep_local(os.environ, url, "us-east-1")  # no test can reach the real one
        yield url


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def localstack_endpoint(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ExitStack() as held:
        try:
            url = held.enter_context(localstack(port, tmp_path_factory.mktemp("localstack")))
        except LookupError as error:
            pytest.skip(str(error))
        yield url


@pytest.fixture
def server() -> str:
    """Whose S3 and SQS a test gets: "moto" or "localstack". DynamoDB is always moto's."""
    return "moto"


@pytest.fixture
def client(endpoint: str, server: str, request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Makes clients of the local AWS, which is emptied for each test."""
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    if server == "moto":
        return partial(boto3.client, endpoint_url=endpoint)
    other = request.getfixturevalue("localstack_endpoint")

    def make(name: str) -> Any:
        if name == "dynamodb":
            return boto3.client(name, endpoint_url=endpoint)
        # LocalStack takes the key's id for the account, if it is a number.
        return boto3.client(name, endpoint_url=other, aws_access_key_id=ACCOUNT, aws_secret_access_key="local")

    _empty(make("s3"), make("sqs"))
    return make


@pytest.fixture
def aws(client: Callable[[str], Any]) -> SimpleNamespace:
    """The stack of template.yaml: `s3`, `sqs`, `dynamodb` as a user's clients, `bucket`, `queue`, `table`."""
    s3, sqs, dynamodb = client("s3"), client("sqs"), client("dynamodb")
    bucket, queue, table = create_stack(Stack(), s3, sqs, dynamodb)
    return SimpleNamespace(s3=s3, sqs=sqs, dynamodb=dynamodb, bucket=bucket, queue=queue, table=table)


@pytest.fixture
def service(aws: SimpleNamespace, client: Callable[[str], Any], server: str, bundle_folder: Path) -> Service:
    """The function's own side, with an S3 client that keeps the conditions that the server ignores."""
    s3 = client("s3")
    if server == "moto":
        s3.meta.events.register_last("before-call.s3.CopyObject", _keep_conditions(aws.s3))
    else:
        complete(s3, aws.sqs)
    captioner = CountingCaptioner(load_bundle(bundle_folder))
    return Service(s3=s3, records=Records(aws.dynamodb, aws.table), captioner=captioner, write_back="metadata")


def _empty(s3: Any, sqs: Any) -> None:
    """Removes all buckets and queues."""
    for bucket in s3.list_buckets()["Buckets"]:
        listed = s3.list_object_versions(Bucket=bucket["Name"])
        for held in [*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())]:
            if bucket["Name"] == "vault":
                s3.put_object_legal_hold(
                    Bucket=bucket["Name"], Key=held["Key"], VersionId=held["VersionId"], LegalHold={"Status": "OFF"}
                )
            s3.delete_object(Bucket=bucket["Name"], Key=held["Key"], VersionId=held["VersionId"])
        s3.delete_bucket(Bucket=bucket["Name"])
    for queue in sqs.list_queues().get("QueueUrls", ()):
        sqs.delete_queue(QueueUrl=queue)


@pytest.fixture(scope="session")
def photo() -> bytes:
    return (PHOTOS / "chelsea.jpg").read_bytes()


@pytest.fixture(scope="session")
def other_photo() -> bytes:
    return (PHOTOS / "rocket.jpg").read_bytes()


def event(name: str) -> Any:
    """An event of events/."""
    return json.loads((ROOT / "events" / f"{name}.json").read_text())


def meanwhile(client: Any, operation: str, act: Callable[[], object], times: int = 1) -> None:
    """Lets `act` happen just before the client calls `operation`, the first `times` times."""
    left = iter(range(times))

    def intervene(**_: Any) -> None:
        if next(left, None) is not None:
            act()

    service = client.meta.service_model.service_name
    client.meta.events.register_first(f"before-call.{service}.{operation}", intervene)


def refuse(client: Any, operation: str, status: int, code: str, message: str = "", times: int = 1000) -> None:
    """Answers the client's next `times` calls of `operation` with an error, as the service words it."""
    left = iter(range(times))

    def answer(**_: Any) -> tuple[Any, dict[str, Any]] | None:
        return refusal(status, code, message) if next(left, None) is not None else None

    service = client.meta.service_model.service_name
    client.meta.events.register(f"before-call.{service}.{operation}", answer)


def _keep_conditions(s3: Any) -> Callable[..., Any]:
    """CopySourceIfMatch and IfMatch as S3 keeps them; in these tests an object is only copied onto itself."""

    def check(params: dict[str, Any], **_: Any) -> Any:
        bucket, key = unquote(params["headers"]["x-amz-copy-source"]).split("/", 1)
        wanted = {params["headers"][name] for name in ("x-amz-copy-source-if-match", "If-Match")}
        try:
            held = s3.head_object(Bucket=bucket, Key=key)["ETag"]
        except ClientError:
            return refusal(404, "NoSuchKey")
        return None if wanted == {held} else refusal(412, "PreconditionFailed")

    return check


def keep_annotations(s3: Any, bucket: str, held: dict[str, bytes]) -> None:
    """S3's annotations, which moto has not, of the client's objects: key -> payload, on condition of ObjectIfMatch."""

    def answer(**fields: Any) -> tuple[Any, dict[str, Any]]:
        status = {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}}
        return SimpleNamespace(status_code=200), status | fields

    def key_in(params: dict[str, Any]) -> str:
        return unquote(params["url_path"].partition("?")[0].removeprefix("/"))

    def get(params: dict[str, Any], **_: Any) -> Any:
        key = key_in(params)
        if key not in held:
            return refusal(404, "NoSuchAnnotation")
        return answer(AnnotationPayload=BytesIO(held[key]))

    def put(params: dict[str, Any], **_: Any) -> Any:
        key = key_in(params)
        if params["headers"]["x-amz-object-if-match"] != s3.head_object(Bucket=bucket, Key=key)["ETag"]:
            return refusal(412, "PreconditionFailed")
        held[key] = params["body"]
        return answer()

    s3.meta.events.register_last("before-call.s3.GetObjectAnnotation", get)
    s3.meta.events.register_last("before-call.s3.PutObjectAnnotation", put)
