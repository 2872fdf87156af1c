import json

import pytest

from infra.template import Stack, create_stack, read_template

STACK = Stack(name="mine", account="111122223333", region="eu-west-1")


def test_references_are_resolved():
    assert STACK.ref("AWS::Region") == "eu-west-1"
    assert STACK.ref("WriteBack") == "metadata"
    assert STACK.ref("Photos") == "mine-111122223333-eu-west-1"
    assert STACK.arn("Photos") == "arn:aws:s3:::mine-111122223333-eu-west-1"
    assert STACK.arn("Uploads") == "arn:aws:sqs:eu-west-1:111122223333:Uploads"
    assert STACK.arn("Records") == "arn:aws:dynamodb:eu-west-1:111122223333:table/Records"
    with pytest.raises(KeyError):
        STACK.ref("Nothing")


def test_only_this_bucket_of_this_account_may_send_to_the_queue():
    (statement,) = STACK.properties("UploadsPolicy")["PolicyDocument"]["Statement"]
    assert statement["Resource"] == STACK.arn("Uploads")
    assert statement["Condition"] == {
        "ArnEquals": {"aws:SourceArn": STACK.arn("Photos")},
        "StringEquals": {"aws:SourceAccount": "111122223333"},
    }


def test_the_bucket_is_private_and_encrypted_and_tells_the_queue_of_uploads_and_removals():
    bucket = STACK.properties("Photos")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert "BucketEncryption" in bucket
    assert bucket["NotificationConfiguration"]["QueueConfigurations"] == [
        {"Event": "s3:ObjectCreated:*", "Queue": STACK.arn("Uploads")},
        {"Event": "s3:ObjectRemoved:*", "Queue": STACK.arn("Uploads")},
    ]


def test_a_message_stays_hidden_for_six_timeouts_and_is_tried_five_times():
    queue, function = STACK.properties("Uploads"), STACK.properties("Captions")
    assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": STACK.arn("DeadLetters"), "maxReceiveCount": 5}
    assert STACK.properties("UploadsToCaptions")["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_the_function_may_touch_its_bucket_its_table_and_its_queue_and_no_more():
    statements = [
        statement for policy in STACK.properties("Captions")["Policies"] for statement in policy["Statement"]
    ]
    assert {statement["Resource"] for statement in statements} == {
        STACK.arn("Photos"),
        STACK.arn("Photos") + "/*",
        STACK.arn("Records"),
        STACK.arn("Uploads"),
    }
    assert "*" not in json.dumps([statement["Action"] for statement in statements])


@pytest.mark.parametrize("resource", ["Photos", "Records"])
def test_what_people_own_outlives_the_stack(resource):
    definition = read_template()["Resources"][resource]
    assert (definition["DeletionPolicy"], definition["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_a_stack_is_made_as_it_is_defined(client):
    s3, sqs, dynamodb = client("s3"), client("sqs"), client("dynamodb")
    bucket, queue, table = create_stack(Stack(), s3, sqs, dynamodb)

    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "360"
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] == 5
    assert json.loads(attributes["Policy"]) == Stack().properties("UploadsPolicy")["PolicyDocument"]
    notifications = s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]
    assert {event for each in notifications for event in each["Events"]} == {
        "s3:ObjectCreated:*",
        "s3:ObjectRemoved:*",
    }
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"]
    described = dynamodb.describe_table(TableName=table)["Table"]
    assert described["KeySchema"] == [{"AttributeName": "image", "KeyType": "HASH"}]
    assert described["GlobalSecondaryIndexes"][0]["IndexName"] == "by_day"


def test_a_tag_that_nobody_here_understands_is_refused(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text("a: !Sub\n  b: c\n")
    with pytest.raises(Exception, match="not understood"):
        read_template(path)
