"""What tests of the function stand on: real HTTP to moto, with bucket, queue and table from template.yaml."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
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
from infra.template import Stack, create_stack
from tests.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "events" / "photos"


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


@pytest.fixture
def client(endpoint: str) -> Callable[[str], Any]:
    """Makes clients of the local AWS, which is emptied for each test."""
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()

    def make(name: str) -> Any:
        return boto3.client(name, endpoint_url=endpoint)

    return make


@pytest.fixture
def aws(client: Callable[[str], Any]) -> SimpleNamespace:
    """The stack of template.yaml: `s3`, `sqs`, `dynamodb` as a user's clients, `bucket`, `queue`, `table`."""
    s3, sqs, dynamodb = client("s3"), client("sqs"), client("dynamodb")
    bucket, queue, table = create_stack(Stack(), s3, sqs, dynamodb)
    return SimpleNamespace(s3=s3, sqs=sqs, dynamodb=dynamodb, bucket=bucket, queue=queue, table=table)


@pytest.fixture
def service(aws: SimpleNamespace, client: Callable[[str], Any], bundle_folder: Path) -> Service:
    """The function's own side, with an S3 client that keeps the conditions that moto ignores."""
    s3 = client("s3")
    s3.meta.events.register_last("before-call.s3.CopyObject", _keep_conditions(aws.s3))
    captioner = CountingCaptioner(load_bundle(bundle_folder))
    return Service(s3=s3, records=Records(aws.dynamodb, aws.table), captioner=captioner, write_back="metadata")


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
        return _error(status, code, message) if next(left, None) is not None else None

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
            return _error(404, "NoSuchKey")
        return None if wanted == {held} else _error(412, "PreconditionFailed")

    return check


def _error(status: int, code: str, message: str = "") -> tuple[Any, dict[str, Any]]:
    answer = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0},
    }
    return SimpleNamespace(status_code=status), answer


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
            return _error(404, "NoSuchAnnotation")
        return answer(AnnotationPayload=BytesIO(held[key]))

    def put(params: dict[str, Any], **_: Any) -> Any:
        key = key_in(params)
        if params["headers"]["x-amz-object-if-match"] != s3.head_object(Bucket=bucket, Key=key)["ETag"]:
            return _error(412, "PreconditionFailed")
        held[key] = params["body"]
        return answer()

    s3.meta.events.register_last("before-call.s3.GetObjectAnnotation", get)
    s3.meta.events.register_last("before-call.s3.PutObjectAnnotation", put)
