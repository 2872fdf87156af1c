import base64
import json
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function.events import (
    BatchJob,
    BatchTask,
    DirectImage,
    DirectObject,
    Notification,
    ObjectName,
    QueueBatch,
    UnknownEvent,
    read_event,
    read_message,
)
from tests.local_stack import event

BUCKET = "captions-123456789012-us-east-1"
CHELSEA = ObjectName(BUCKET, "cats/Chelsea at café.jpg")


def notification(*keys):
    record = event("s3-put")["Records"][0]
    return {"Records": [{**record, "s3": {**record["s3"], "object": {"key": key, "size": 1}}} for key in keys]}


@pytest.mark.parametrize(
    "name",
    ["put", "put-versioned", "multipart", "post", "copy", "delete", "delete-marker"],
)
def test_an_s3_notification_asks_to_look_at_its_keys(name):
    assert read_event(event(f"s3-{name}")) == Notification((CHELSEA,))


@pytest.mark.parametrize("name", ["created", "deleted"])
def test_so_does_an_event_through_eventbridge_whose_key_is_not_encoded(name):
    asked = event(f"eventbridge-{name}")
    assert read_event(asked) == Notification((CHELSEA,))
    asked["detail"]["object"]["key"] = "a+b%20.jpg"
    assert read_event(asked).objects[0].key == "a+b%20.jpg"


@pytest.mark.parametrize("name", ["sqs-s3-put", "sqs-sns-s3-put", "sqs-eventbridge-created"])
def test_a_message_may_hold_either_in_the_envelope_of_a_topic_or_not(name):
    assert read_message(event(name)["Records"][0]["body"]) == Notification((CHELSEA,))


@pytest.mark.parametrize("schema", ["1.0", "2.0"])
def test_s3_batch_operations_asks_for_tasks(schema):
    job = event(f"s3-batch-{schema}")
    task = BatchTask(job["tasks"][0]["taskId"], CHELSEA)
    assert read_event(job) == BatchJob(schema, job["invocationId"], (task,))


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("a+b%C3%A9.jpg", "a bé.jpg"),
        ("in/a%20b%2B", "in/a b+"),
        ("in%2Fa+b%2B", "in/a b+"),
        ("100%25.jpg", "100%.jpg"),
    ],
)
def test_keys_of_notifications_are_form_encoded(encoded, key):
    assert read_event(notification(encoded)).objects == (ObjectName(BUCKET, key),)


@given(st.text(min_size=1))
def test_any_key_survives_the_encoding(key):
    key = key.encode(errors="replace").decode()
    assert read_event(notification(quote_plus(key))).objects[0].key == key


def test_a_notification_may_tell_of_several_objects():
    assert [name.key for name in read_event(notification("a", "b")).objects] == ["a", "b"]


def test_a_batch_from_sqs_keeps_its_messages_unread():
    batch = event("sqs-s3-put")
    assert read_event(batch) == QueueBatch(((batch["Records"][0]["messageId"], batch["Records"][0]["body"]),))


def test_the_test_event_of_s3_asks_nothing():
    assert read_event(event("s3-test")) == Notification(())
    assert read_message(json.dumps(event("s3-test"))) == Notification(())


def test_a_direct_invoke_names_an_object_whose_key_is_not_encoded():
    assert read_event(event("direct-object")) == DirectObject(CHELSEA)
    assert read_event({"bucket": "b", "key": "a+b.jpg"}) == DirectObject(ObjectName("b", "a+b.jpg"))


def test_a_direct_invoke_brings_an_image():
    asked = read_event(event("direct-image"))
    assert asked == DirectImage(base64.b64decode(event("direct-image")["image"]))
    assert asked.data.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("unknown", "named"),
    [
        ({"hello": "secret"}, "got an object with hello"),
        ({}, "an object with no fields"),
        (None, "a NoneType"),
        ([1], "a list"),
        ({"Records": []}, "an object with Records"),
        ({"Records": [{"eventSource": "aws:kinesis"}]}, "an object with Records"),
        ({"bucket": "b"}, "an object with bucket"),
        ({"bucket": "b", "key": ""}, "an object with bucket, key"),
        ({"bucket": "b", "key": 7}, "an object with bucket, key"),
        ({"Records": [{"eventSource": "aws:s3"}]}, "s3.bucket.name"),
        ({"Records": [{"eventSource": "aws:sqs"}]}, "messageId"),
        ({"source": "aws.s3", "detail": {"bucket": "b"}}, "an object with detail, source"),
        ({"invocationSchemaVersion": "1.0", "invocationId": "i", "tasks": [{"taskId": "t"}]}, "s3BucketArn"),
        ({"image": "no base64!"}, "base64"),
        ({"image": "abc"}, "base64"),
        ({"image": "é"}, "base64"),
    ],
)
def test_anything_else_is_refused_by_a_line_that_says_what_was_expected(unknown, named):
    with pytest.raises(UnknownEvent, match="expected") as refused:
        read_event(unknown)
    assert named in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("body", ["", "no JSON", "[]", "7", '{"Records": []}', '{"Records": [7]}'])
def test_a_message_of_anything_else_is_refused(body):
    with pytest.raises(UnknownEvent, match="expected"):
        read_message(body)
