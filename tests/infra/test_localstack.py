"""What LocalStack does as S3 does, what `complete` adds to it, and what the function makes of its events."""

import json
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError
from urllib3.filepost import encode_multipart_formdata

from function import uploads
from function.app import answer
from function.events import ObjectName
from infra.localstack import complete
from tests.local_stack import event

NAME = "in/a+b é.jpg"


@pytest.fixture
def server():
    return "localstack"


@pytest.fixture
def copy(aws):
    """Copies the object onto itself on conditions; the status of S3's answer."""
    complete(aws.s3, aws.sqs)
    aws.s3.put_object(Bucket=aws.bucket, Key=NAME, Body=b"first")

    def call(**conditions):
        source = {"Bucket": aws.bucket, "Key": NAME}
        try:
            aws.s3.copy_object(
                Bucket=aws.bucket, Key=NAME, CopySource=source, MetadataDirective="REPLACE", **conditions
            )
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]
        return 200

    return call


@pytest.mark.parametrize("condition", ["CopySourceIfMatch", "IfMatch"])
def test_a_copy_holds_only_for_the_object_that_was_read(aws, copy, condition):
    held = aws.s3.head_object(Bucket=aws.bucket, Key=NAME)["ETag"]
    assert copy(**{condition: '"another"'}) == 412
    assert copy(**{condition: held}) == 200


def test_a_copy_onto_what_is_gone_is_none(aws, copy):
    held = aws.s3.head_object(Bucket=aws.bucket, Key=NAME)["ETag"]
    aws.s3.delete_object(Bucket=aws.bucket, Key=NAME)
    assert copy(IfMatch=held) == 404


def test_each_event_has_a_greater_sequencer(aws):
    complete(aws.s3, aws.sqs)
    for body in (b"1", b"2", b"3"):
        aws.s3.put_object(Bucket=aws.bucket, Key=NAME, Body=body)
    records = [record for message in received(aws, 5) for record in message.get("Records", ())]
    sequencers = [record["s3"]["object"]["sequencer"] for record in records]
    assert sequencers == sorted(set(sequencers))
    assert len(sequencers) == 3


def received(aws, count):
    """The bodies of so many messages from the queue, which are then gone from it."""
    found = []
    end = time.monotonic() + 20
    while len(found) < count and time.monotonic() < end:
        asked = aws.sqs.receive_message(QueueUrl=aws.queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in asked.get("Messages", ()):
            aws.sqs.delete_message(QueueUrl=aws.queue, ReceiptHandle=message["ReceiptHandle"])
            found.append(json.loads(message["Body"]))
    return found


def deliver(aws, service, count):
    """Hands the next `count` messages to the function, ten at a time as Lambda does; the events' names."""
    bodies = received(aws, count)
    template = event("sqs-s3-put")["Records"][0]
    messages = [template | {"messageId": f"{at}", "body": json.dumps(body)} for at, body in enumerate(bodies)]
    assert answer({"Records": messages}, service) == {"batchItemFailures": []}
    return [record["eventName"] for body in bodies for record in body.get("Records", ())]


def status(aws, service, key=NAME):
    record = service.records.read(f"{aws.bucket}/{key}")
    return record and record.status


def test_the_real_events_of_an_upload_its_copy_and_its_removal(aws, service, photo):
    deliver(aws, service, 2)  # S3's test events
    aws.s3.put_object(Bucket=aws.bucket, Key=NAME, Body=photo)
    assert deliver(aws, service, 1) == ["ObjectCreated:Put"]
    assert status(aws, service) == "captioned"
    assert deliver(aws, service, 1) == ["ObjectCreated:Copy"]  # the function's own
    assert received(aws, 1) == []  # which is the end of it
    aws.s3.delete_object(Bucket=aws.bucket, Key=NAME)
    assert deliver(aws, service, 1) == ["ObjectRemoved:Delete"]
    assert status(aws, service) == "deleted"


def test_somebody_elses_copy_is_captioned_without_believing_its_metadata(aws, service, photo, other_photo):
    aws.s3.put_object(Bucket=aws.bucket, Key=NAME, Body=photo)
    deliver(aws, service, 3)
    deliver(aws, service, 1)
    source = {"Bucket": aws.bucket, "Key": NAME}
    lie = {"caption": "a lie", "caption-model": "tiny", "caption-source": "0" * 64}
    aws.s3.copy_object(Bucket=aws.bucket, Key="b.jpg", CopySource=source)
    aws.s3.put_object(Bucket=aws.bucket, Key="c.jpg", Body=other_photo, Metadata=lie)
    deliver(aws, service, 2)
    for key in ("b.jpg", "c.jpg"):
        record = service.records.read(f"{aws.bucket}/{key}")
        held = aws.s3.head_object(Bucket=aws.bucket, Key=key)["Metadata"]
        assert held["caption"] == record.caption != "a lie"
        assert held["caption-source"] == record.sha256


def test_a_photo_in_parts_is_captioned_and_stays_so_after_its_copy(aws, service, photo):
    upload = aws.s3.create_multipart_upload(Bucket=aws.bucket, Key=NAME, ContentType="image/jpeg")["UploadId"]
    part = {"Bucket": aws.bucket, "Key": NAME, "UploadId": upload, "PartNumber": 1}
    etag = aws.s3.upload_part(**part, Body=photo)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    aws.s3.complete_multipart_upload(Bucket=aws.bucket, Key=NAME, UploadId=upload, MultipartUpload=parts)
    names = deliver(aws, service, 3) + deliver(aws, service, 1)
    assert names == ["ObjectCreated:CompleteMultipartUpload", "ObjectCreated:Copy"]
    assert service.captioner.inferences == 1
    assert aws.s3.head_object(Bucket=aws.bucket, Key=NAME)["Metadata"]["caption"]


def test_in_a_versioned_bucket_the_newest_version_counts(aws, service, photo, other_photo):
    aws.s3.put_bucket_versioning(Bucket=aws.bucket, VersioningConfiguration={"Status": "Enabled"})
    aws.s3.put_object(Bucket=aws.bucket, Key=NAME, Body=photo)
    aws.s3.put_object(Bucket=aws.bucket, Key=NAME, Body=other_photo)
    deliver(aws, service, 4)
    assert len(aws.s3.list_object_versions(Bucket=aws.bucket)["Versions"]) == 3  # two photos and one copy
    assert deliver(aws, service, 1) == ["ObjectCreated:Copy"]
    aws.s3.delete_object(Bucket=aws.bucket, Key=NAME)
    assert deliver(aws, service, 1) == ["ObjectRemoved:DeleteMarkerCreated"]
    assert status(aws, service) == "deleted"


@pytest.fixture
def send(aws, service, monkeypatch):
    """Posts a form of the API's own making, perhaps changed; S3's status."""

    def post(photo, size=None, life=uploads.FORM_LIFE, **changed):
        monkeypatch.setattr(uploads, "FORM_LIFE", life)
        name = ObjectName(aws.bucket, "in/one/photo.jpg")
        url, fields = uploads.sign_upload(service.s3, name, "image/jpeg", size or len(photo))
        form = [*(fields | changed).items(), ("file", ("photo.jpg", photo))]
        body, content_type = encode_multipart_formdata(form)
        try:
            return urlopen(Request(url, body, {"Content-Type": content_type})).status
        except HTTPError as error:
            return error.code

    return post


def test_a_form_takes_its_photo(aws, send, photo):
    assert send(photo) == 204
    held = aws.s3.get_object(Bucket=aws.bucket, Key="in/one/photo.jpg")
    assert (held["Body"].read(), held["ContentType"]) == (photo, "image/jpeg")


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "in/another/photo.jpg"},
        {"key": "elsewhere.jpg"},
        {"Content-Type": "text/html"},
        {"size": 100},
        {"size": 10_000_000},
        {"life": -60},
        {"x-amz-signature": "0" * 64},
    ],
    ids=str,
)
def test_a_form_takes_nothing_else(aws, send, photo, changed):
    assert send(photo, **changed) in (400, 403)
    assert "Contents" not in aws.s3.list_objects_v2(Bucket=aws.bucket)
