import json
from dataclasses import replace
from threading import Barrier
from time import sleep
from urllib.parse import quote_plus

import pytest
from botocore.config import Config

from function import app, objects
from function.app import answer, lambda_handler
from function.events import UnknownEvent
from function.objects import ObjectUnavailable
from function.photos import read_photo
from infra.local import CONTEXT
from tests.local_stack import event, refuse

KEY = "cats/Chelsea at café.jpg"  # of the events in events/


@pytest.fixture
def chelsea(aws, photo):
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=photo, ContentType="image/jpeg")


def status(service, aws, key=KEY):
    record = service.records.read(f"{aws.bucket}/{key}")
    return record and record.status


def batch(*bodies):
    message = event("sqs-s3-put")["Records"][0]
    return {
        "Records": [{**message, "messageId": f"message-{number}", "body": body} for number, body in enumerate(bodies)]
    }


def body(bucket, key):
    notification = event("s3-put")
    notification["Records"][0]["s3"] |= {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}}
    return json.dumps(notification)


def deliver_all(aws, service):
    """Lambda's poller until the queue is empty; how many messages that took."""
    count = 0
    while messages := aws.sqs.receive_message(QueueUrl=aws.queue, MaxNumberOfMessages=10).get("Messages"):
        assert answer(batch(*(message["Body"] for message in messages)), service) == {"batchItemFailures": []}
        for message in messages:
            aws.sqs.delete_message(QueueUrl=aws.queue, ReceiptHandle=message["ReceiptHandle"])
        count += len(messages)
        assert count < 100, "the function triggers itself"
    return count


def test_an_s3_notification_captions_its_photo(aws, service, chelsea):
    assert answer(event("s3-put"), service) is None
    assert status(service, aws) == "captioned"


@pytest.mark.parametrize("schema", ["1.0", "2.0"])
def test_a_sweep_captions_and_says_what(aws, service, chelsea, schema):
    job = event(f"s3-batch-{schema}")
    answered = answer(job, service)
    caption = service.records.read(f"{aws.bucket}/{KEY}").caption
    assert answered == {
        "invocationSchemaVersion": schema,
        "treatMissingKeysAs": "TemporaryFailure",
        "invocationId": job["invocationId"],
        "results": [
            {
                "taskId": job["tasks"][0]["taskId"],
                "resultCode": "Succeeded",
                "resultString": f"captioned: {caption}",
            }
        ],
    }


def test_a_swept_photo_that_is_rejected_or_gone_has_succeeded(aws, service):
    (gone,) = answer(event("s3-batch-1.0"), service)["results"]
    assert (gone["resultCode"], gone["resultString"]) == ("Succeeded", "deleted: ")
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=b"no photo")
    (rejected,) = answer(event("s3-batch-1.0"), service)["results"]
    assert rejected["resultCode"] == "Succeeded"
    assert rejected["resultString"].startswith("rejected: not a JPEG")


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (403, "AccessDenied", "PermanentFailure"),
        (500, "InternalError", "TemporaryFailure"),
        (503, "SlowDown", "TemporaryFailure"),
    ],
)
def test_a_sweep_gives_up_what_is_refused_and_tries_the_rest_again(aws, service, chelsea, status, code, result):
    refuse(service.s3, "GetObject", status, code)
    (failed,) = answer(event("s3-batch-2.0"), service)["results"]
    assert failed["resultCode"] == result
    assert code in failed["resultString"]


def test_of_ten_messages_one_that_is_malformed_fails_alone(aws, service, chelsea):
    ten = event("sqs-ten-one-bad")
    bad = [message["messageId"] for message in ten["Records"] if "hello" in message["body"]]
    assert answer(ten, service) == {"batchItemFailures": [{"itemIdentifier": bad[0]}]}
    assert status(service, aws) == "captioned"
    assert service.captioner.inferences == 1


@pytest.mark.parametrize("name", ["sqs-sns-s3-put", "sqs-eventbridge-created", "eventbridge-created"])
def test_what_came_another_way_is_captioned_too(aws, service, chelsea, name):
    assert answer(event(name), service) in (None, {"batchItemFailures": []})
    assert status(service, aws) == "captioned"


def test_a_batch_from_sqs_captions_its_photos(aws, service, chelsea):
    assert answer(event("sqs-s3-put"), service) == {"batchItemFailures": []}
    assert status(service, aws) == "captioned"


def test_from_upload_to_metadata_by_the_real_queue_and_then_silence(aws, service, chelsea):
    assert deliver_all(aws, service) == 3  # S3's test event, the upload, the function's own copy
    held = aws.s3.head_object(Bucket=aws.bucket, Key=KEY)
    assert held["Metadata"]["caption"] == service.records.read(f"{aws.bucket}/{KEY}").caption
    assert held["ContentType"] == "image/jpeg"
    assert service.captioner.inferences == 1

    aws.s3.delete_object(Bucket=aws.bucket, Key=KEY)
    deliver_all(aws, service)
    assert status(service, aws) == "deleted"


def test_of_a_batch_only_what_failed_comes_back(aws, service, photo, caplog):
    aws.s3.put_object(Bucket=aws.bucket, Key="good", Body=photo)
    aws.s3.put_object(Bucket=aws.bucket, Key="rejected", Body=b"no photo")
    answered = answer(
        batch(
            body(aws.bucket, "good"),
            body("nowhere", "a.jpg"),
            body(aws.bucket, "rejected"),
            "no JSON",
            body(aws.bucket, "gone"),
            json.dumps(event("s3-test")),
        ),
        service,
    )
    assert answered == {"batchItemFailures": [{"itemIdentifier": "message-1"}, {"itemIdentifier": "message-3"}]}
    assert [status(service, aws, key) for key in ("good", "rejected", "gone")] == [
        "captioned",
        "rejected",
        "deleted",
    ]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert sorted(errors) == [
        "message message-1: ObjectUnavailable: cannot read s3://nowhere/a.jpg: NoSuchBucket: "
        "The specified bucket does not exist",
        "message message-3: UnknownEvent: expected an S3 notification in the message's body; got no JSON",
    ]


def test_messages_of_a_batch_do_not_wait_for_each_other(aws, service, photo):
    keys = [f"{number}.jpg" for number in range(5)]
    for key in keys:
        aws.s3.put_object(Bucket=aws.bucket, Key=key, Body=photo)
    all_here = Barrier(len(keys))

    def wait_for_all(**_):
        all_here.wait(10)

    service.s3.meta.events.register("before-call.s3.GetObject", wait_for_all)
    assert answer(batch(*(body(aws.bucket, key) for key in keys)), service) == {"batchItemFailures": []}
    assert [status(service, aws, key) for key in keys] == ["captioned"] * len(keys)


def test_one_photo_of_a_batch_is_decoded_at_a_time(aws, service, photo, monkeypatch):
    at_work, most = [], []

    def watched(*arguments):
        at_work.append(1)
        most.append(len(at_work))
        sleep(0.01)
        found = read_photo(*arguments)
        at_work.pop()
        return found

    monkeypatch.setattr(objects, "read_photo", watched)
    keys = [f"{number}.jpg" for number in range(5)]
    for key in keys:
        aws.s3.put_object(Bucket=aws.bucket, Key=key, Body=photo)
    answer(batch(*(body(aws.bucket, key) for key in keys)), service)
    assert most == [1] * len(keys)


def test_what_a_batch_says_ten_times_is_done_once(aws, service, chelsea):
    assert answer(batch(*[body(aws.bucket, KEY)] * 10), service) == {"batchItemFailures": []}
    assert service.captioner.inferences == 1
    assert service.records.read(f"{aws.bucket}/{KEY}").revision == 1


def test_a_missing_permission_brings_the_message_back(aws, service, chelsea, caplog):
    refuse(service.s3, "GetObject", 403, "AccessDenied")
    failed = answer(batch(body(aws.bucket, KEY)), service)["batchItemFailures"]
    assert failed == [{"itemIdentifier": "message-0"}]
    assert f"cannot read s3://{aws.bucket}/{KEY}: AccessDenied" in caplog.text


def test_one_bad_object_of_a_notification_does_not_keep_the_others(aws, service, photo):
    aws.s3.put_object(Bucket=aws.bucket, Key="good", Body=photo)
    records = [json.loads(body(*place))["Records"][0] for place in [("nowhere", "a"), (aws.bucket, "good")]]
    with pytest.raises(ExceptionGroup, match="1 of 2 objects") as failed:
        answer({"Records": records}, service)
    assert isinstance(failed.value.exceptions[0], ObjectUnavailable)
    assert status(service, aws, "good") == "captioned"


def test_a_direct_invoke_answers_with_the_record(aws, service, chelsea):
    answered = answer(event("direct-object"), service)
    assert (answered["status"], answered["image"]) == ("captioned", f"{aws.bucket}/{KEY}")
    assert json.loads(json.dumps(answered)) == answered
    assert answer(event("direct-object"), service) == answered


def test_a_direct_image_is_captioned_and_nothing_is_stored(aws, service):
    answered = json.loads(json.dumps(answer(event("direct-image"), service)))
    assert answered["caption"] == answered["captions"][0]["text"] != ""
    assert (answered["status"], answered["model"], answered["format"]) == ("captioned", "tiny", "JPEG")
    assert aws.dynamodb.scan(TableName=aws.table)["Items"] == []


def test_a_direct_image_that_is_none_is_rejected_with_its_reason(service):
    answered = answer({"image": "bm8gcGhvdG8="}, service)
    assert answered["status"] == "rejected"
    assert answered["reason"]


def test_an_event_that_nobody_answers_is_refused(service):
    with pytest.raises(UnknownEvent, match="expected an S3 notification, a batch of them from SQS"):
        answer({"httpMethod": "GET"}, service)


def test_the_handler_is_made_from_its_environment_once(aws, chelsea, bundle_folder, monkeypatch):
    monkeypatch.setenv("TABLE", aws.table)
    monkeypatch.setenv("WRITE_BACK", "none")
    monkeypatch.setenv("BUNDLE", str(bundle_folder))
    app.deployed_service.cache_clear()
    answered = lambda_handler(event("direct-object"), CONTEXT)
    assert (answered["status"], answered["model"]) == ("captioned", "tiny")
    assert aws.s3.head_object(Bucket=aws.bucket, Key=KEY)["Metadata"] == {}
    assert app.deployed_service() is app.deployed_service()
    app.deployed_service.cache_clear()


def test_what_is_new_is_put_on_the_bus_and_a_bus_that_fails_costs_nothing(
    aws, service, chelsea, client, endpoint, monkeypatch, caplog
):
    client("events").create_event_bus(Name="photos")
    queue = aws.sqs.create_queue(QueueName="news")["QueueUrl"]
    arn = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    client("events").put_rule(Name="all", EventBusName="photos", EventPattern='{"source": ["captions"]}')
    client("events").put_targets(Rule="all", EventBusName="photos", Targets=[{"Id": "1", "Arn": arn}])

    answered = answer(event("direct-object"), replace(service, announce=app._announcer("photos")))
    (message,) = aws.sqs.receive_message(QueueUrl=queue)["Messages"]
    announced = json.loads(message["Body"])
    assert (announced["source"], announced["detail-type"]) == ("captions", "Photo Captioned")
    assert announced["detail"]["caption"] == answered["caption"]

    monkeypatch.setattr(app, "PATIENCE", Config(connect_timeout=1, retries={"total_max_attempts": 1}))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=b"no photo")
    answered = answer(event("direct-object"), replace(service, announce=app._announcer("photos")))
    assert answered["status"] == "rejected"
    assert "is not announced on photos" in caplog.text
