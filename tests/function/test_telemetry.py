"""What CloudWatch gets to see: all that the function writes to standard output."""

import base64
import json
import sys
from dataclasses import replace

import pytest

from function import api, app, telemetry
from function.api import Site
from infra.local import CONTEXT
from tests.local_stack import event, refuse

KEY = "cats/Chelsea at café.jpg"  # of the events in events/


@pytest.fixture
def say(aws, service, monkeypatch, capsys):
    """Hands the handler an event; what it then wrote, line by line, read as JSON."""
    watched = replace(service, count=telemetry.count, measure=telemetry.measure)
    monkeypatch.setattr(app, "deployed_service", lambda: watched)
    monkeypatch.setattr(api, "deployed_site", lambda: Site(aws.bucket, "", "LOCAL"))
    telemetry.metrics.clear_metrics()

    def call(asked):
        monkeypatch.setattr(telemetry.logger.handlers[0], "stream", sys.stdout)  # as it is at this moment of a test
        app.lambda_handler(asked, CONTEXT)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def logged(lines):
    return [line for line in lines if "_aws" not in line]


def measured(lines):
    """(name, dimensions but the service) -> values."""
    found = {}
    for line in lines:
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()):
            assert directive["Namespace"] == "Captions"
            (names,) = directive["Dimensions"]
            dimensions = tuple(line[name] for name in names if name != "service")
            found |= {(metric["Name"], *dimensions): line[metric["Name"]] for metric in directive["Metrics"]}
    return found


def test_a_caption_is_counted_once_with_the_time_of_each_stage(aws, say, photo):
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=photo)
    first = measured(say(event("s3-put")))
    assert first["Captioned",] == [1.0]
    assert first["Captioned", "tiny"] == [1.0]
    stages = ("Read", "Decode", "Inference", "Record", "Write")
    assert all(first[f"{stage}Milliseconds",][0] > 0 for stage in stages)
    assert measured(say(event("s3-put"))) == {}  # the copy's own event is no news


def test_a_rejection_is_counted_by_the_kind_of_its_reason(aws, say, photo):
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=photo[:5000])
    counted = measured(say(event("s3-put")))
    assert counted["Rejected",] == [1.0]
    assert counted["Rejected", "the JPEG is damaged"] == [1.0]


def test_a_removal_is_counted(say):
    assert measured(say(event("s3-delete")))["Deleted",] == [1.0]


def test_confidence_is_measured_where_the_model_has_it(capsys):
    from function.records import Record

    telemetry.count(Record("bucket/key", "captioned", confidence=0.3, model="tiny"))
    telemetry.flush()
    assert measured(map(json.loads, capsys.readouterr().out.splitlines()))["Confidence",] == [0.3]


def test_a_line_says_whose_it_is(aws, say, photo):
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=photo)
    (line,) = logged(say(event("s3-put")))
    assert (line["level"], line["image"], line["model"]) == ("INFO", f"{aws.bucket}/{KEY}", "tiny")
    assert (line["service"], line["function_request_id"]) == (telemetry.SERVICE, CONTEXT.aws_request_id)
    assert "cold_start" in line


def test_the_reason_of_a_failure_stands_under_the_messages_id(aws, service, say, photo):
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=photo)
    refuse(service.s3, "GetObject", 403, "AccessDenied")
    batch = event("sqs-s3-put")
    lines = say(batch)
    (line,) = [line for line in logged(lines) if line["level"] == "ERROR"]
    identifier = batch["Records"][0]["messageId"]
    assert line["correlation_id"] == line["message_id"] == identifier
    assert f"cannot read s3://{aws.bucket}/{KEY}: AccessDenied" in line["message"]
    assert measured(lines)["Failed",] == [1.0]


def test_each_line_of_a_batch_stands_under_its_own_messages_id(aws, say, photo):
    (message,) = event("sqs-s3-put")["Records"]
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    for name in names:
        aws.s3.put_object(Bucket=aws.bucket, Key=name, Body=photo)
    renamed = {name: message["body"].replace("cats/Chelsea+at+caf%C3%A9.jpg", name) for name in names}
    lines = say({"Records": [{**message, "messageId": name, "body": body} for name, body in renamed.items()]})
    ids = {line["image"]: line["correlation_id"] for line in logged(lines)}
    assert ids == {f"{aws.bucket}/{name}": name for name in names}
    assert measured(lines)["Captioned",] == [1.0] * len(names)


def test_what_one_message_is_logged_under_does_not_outlive_it(say):
    say(event("sqs-ten-one-bad"))
    (line,) = logged(say(event("s3-put")))
    assert "correlation_id" not in line


def test_neither_photos_nor_signed_links_are_logged(aws, service, say, photo, caplog):
    """Also not where everything goes wrong, and not at the level of debugging."""
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=photo)
    say(event("s3-put"))
    caplog.set_level("DEBUG", "function")
    requests = [
        ("POST", "/captions", photo),
        ("POST", "/uploads", b'{"filename": "a.jpg", "content_type": "image/jpeg", "bytes": 3000}'),
        ("GET", "/captions", b""),
        ("GET", "/captions/item", b""),
    ]
    for broken in (False, True):
        if broken:
            for operation in ("GetItem", "Query"):
                refuse(service.records.dynamodb, operation, 400, "ValidationException")
        for method, path, body in requests:
            asked = event("http-captions")
            asked["requestContext"]["http"] |= {"method": method, "path": path}
            asked |= {"rawPath": path, "body": base64.b64encode(body).decode()}
            asked |= {"rawQueryString": f"key={KEY}", "queryStringParameters": {"key": KEY}}
            written = json.dumps(say(asked)) + caplog.text
            for secret in ("X-Amz-Signature", "x-amz-signature", "policy", base64.b64encode(photo).decode()[:40]):
                assert secret not in written
    assert "ValidationException" in written  # the reason is there all the same
