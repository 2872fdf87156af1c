import pytest
from moto.s3.models import s3_backends

from infra.adopt_bucket import main

ORIGIN = "https://api.example.org"
KEPT = {"ID": "theirs", "AllowedMethods": ["GET"], "AllowedOrigins": ["https://www.example.org"]}


@pytest.fixture
def connect(client):
    """Makes clients to whom S3 tells of EventBridge: moto keeps that it is on, but leaves it out of its answer."""

    def tell(parsed, **_):
        held = s3_backends["123456789012"]["aws"].buckets["theirs"].notification_configuration
        if held and held.event_bridge is not None:
            parsed["EventBridgeConfiguration"] = {}

    def make(name):
        made = client(name)
        made.meta.events.register("after-call.s3.GetBucketNotificationConfiguration", tell)
        return made

    return make


@pytest.fixture
def bucket(connect, client):
    """The client of somebody's bucket that tells a queue of its uploads."""
    s3, sqs = connect("s3"), client("sqs")
    s3.create_bucket(Bucket="theirs")
    url = sqs.create_queue(QueueName="theirs")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    queue = {"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectCreated:Put"]}
    s3.put_bucket_notification_configuration(
        Bucket="theirs", NotificationConfiguration={"QueueConfigurations": [queue]}
    )
    return s3


def configuration(s3):
    """What the bucket's owner cares for: whom it notifies, and which pages may use it."""
    notifications = s3.get_bucket_notification_configuration(Bucket="theirs")
    del notifications["ResponseMetadata"]
    try:
        return notifications, s3.get_bucket_cors(Bucket="theirs")["CORSRules"]
    except s3.exceptions.ClientError:
        return notifications, []


def test_eventbridge_is_added_and_all_else_stays(bucket, connect, capsys):
    notifications, _ = configuration(bucket)
    assert main(["theirs"], connect) == 0
    assert configuration(bucket) == (notifications | {"EventBridgeConfiguration": {}}, [])
    assert capsys.readouterr().out == "theirs: events to EventBridge are on now\n"


def test_a_second_time_changes_nothing(bucket, connect, capsys):
    main(["theirs", "--origin", ORIGIN], connect)
    after = configuration(bucket)
    capsys.readouterr()
    assert main(["theirs", "--origin", ORIGIN], connect) == 0
    assert configuration(bucket) == after
    assert capsys.readouterr().out == (
        f"theirs: events to EventBridge were on already\ntheirs: {ORIGIN} was allowed already\n"
    )


def test_the_page_may_use_the_bucket_and_so_may_those_who_could_before(bucket, connect):
    bucket.put_bucket_cors(Bucket="theirs", CORSConfiguration={"CORSRules": [KEPT]})
    assert main(["theirs", "--origin", ORIGIN], connect) == 0
    _, (theirs, ours) = configuration(bucket)
    assert theirs == KEPT
    assert (ours["AllowedOrigins"], ours["AllowedMethods"]) == ([ORIGIN], ["GET", "POST"])


def test_a_bucket_that_is_not_there_is_one_line(client, capsys):
    assert main(["nowhere"], client) == 1
    assert capsys.readouterr().err.startswith("nowhere: An error occurred (NoSuchBucket)")
