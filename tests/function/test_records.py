import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import boto3
import pytest

from function.records import SHARDS, Overtaken, Record, Records, as_json, stamp, tombstone
from infra.template import Stack
from tests.local_stack import ROOT

NOW = datetime(2026, 11, 23, 21, 4, 17, 382000, tzinfo=UTC)
CAPTIONED = stamp(
    Record(
        image="photos/a.jpg",
        status="captioned",
        caption="a dog runs",
        captions=({"text": "a dog runs", "log_probability": -3.25}, {"text": "", "log_probability": -1e-7}),
        caption_by="model",
        model="tiny",
        sha256="0" * 64,
        etag="abc",
        width=640,
        height=480,
        format="JPEG",
        bytes=12345,
    ),
    NOW,
)


@pytest.fixture(scope="module")
def dynalite():
    """The URL of a DynamoDB that somebody else wrote, by npm."""
    program = ROOT / "infra" / "dynalite" / "node_modules" / ".bin" / "dynalite"
    if not program.exists() or shutil.which("node") is None:
        pytest.skip("dynalite is not installed: make infra/dynalite/node_modules takes npm")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, f"--port={port}", "--host=127.0.0.1", "--createTableMs=0", "--deleteTableMs=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert b"listening" in process.stdout.readline().lower()
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(params=["moto", "dynalite", *(["DynamoDB Local"] if "DYNAMODB_LOCAL" in os.environ else [])])
def records(request, endpoint):
    """The table of template.yaml; also in Amazon's DynamoDB Local, where $DYNAMODB_LOCAL is its URL."""
    if request.param == "moto":
        aws = request.getfixturevalue("aws")
        return Records(aws.dynamodb, aws.table)
    url = request.getfixturevalue("dynalite") if request.param == "dynalite" else os.environ["DYNAMODB_LOCAL"]
    dynamodb, stack = boto3.client("dynamodb", endpoint_url=url), Stack()
    names = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
    properties = {name: stack.properties("Records")[name] for name in names}
    if stack.ref("Records") in dynamodb.list_tables()["TableNames"]:
        dynamodb.delete_table(TableName=stack.ref("Records"))
        dynamodb.get_waiter("table_not_exists").wait(TableName=stack.ref("Records"), WaiterConfig={"Delay": 0.1})
    dynamodb.create_table(TableName=stack.ref("Records"), **properties)
    dynamodb.get_waiter("table_exists").wait(TableName=stack.ref("Records"), WaiterConfig={"Delay": 0.1})
    return Records(dynamodb, stack.ref("Records"))


def test_a_record_comes_back_as_it_was_written(records):
    written = records.write(CAPTIONED, None)
    assert written == replace(CAPTIONED, revision=1)
    assert records.read("photos/a.jpg") == written


def test_there_is_no_record_of_what_was_never_seen(records):
    assert records.read("photos/a.jpg") is None


def test_the_revision_counts_up(records):
    first = records.write(CAPTIONED, None)
    second = records.write(replace(first, caption="a cat"), first)
    assert (second.revision, records.read(first.image)) == (2, second)


def test_a_write_on_an_old_revision_is_overtaken_and_changes_nothing(records):
    first = records.write(CAPTIONED, None)
    second = records.write(replace(first, caption="a cat"), first)
    for known in (first, None):
        with pytest.raises(Overtaken, match=r"photos/a\.jpg"):
            records.write(replace(first, caption="late"), known)
    assert records.read(first.image) == second


def test_of_many_writers_one_wins(records):
    def write(number):
        try:
            return records.write(replace(CAPTIONED, caption=str(number)), None)
        except Overtaken:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [record for record in pool.map(write, range(16)) if record]
    assert won == [records.read(CAPTIONED.image)]


def test_the_index_by_day_holds_what_is_stamped_newest_last(records):
    for hour in (3, 1, 2):
        records.write(stamp(replace(CAPTIONED, image=f"photos/{hour}"), NOW.replace(hour=hour)), None)
    records.write(tombstone("photos/gone", NOW), None)
    found = []
    for shard in range(SHARDS):
        found += records.dynamodb.query(
            TableName=records.table,
            IndexName="by_day",
            KeyConditionExpression="#day = :day",
            ExpressionAttributeNames={"#day": "day"},
            ExpressionAttributeValues={":day": {"S": f"2026-11-23#{shard}"}},
        )["Items"]
    times = {item["image"]["S"]: item["captioned_at"]["S"] for item in found}
    assert times == {f"photos/{hour}": f"2026-11-23T0{hour}:04:17.382Z" for hour in (1, 2, 3)}


def test_a_sweep_spreads_over_all_shards():
    days = {stamp(replace(CAPTIONED, image=f"photos/{n}"), NOW).day for n in range(200)}
    assert days == {f"2026-11-23#{shard}" for shard in range(8)}


def test_the_stamp_is_in_utc():
    there = datetime(2026, 11, 24, 1, 0, tzinfo=timezone(timedelta(hours=5)))
    stamped = stamp(CAPTIONED, there)
    assert stamped.captioned_at == "2026-11-23T20:00:00.000Z"
    assert stamped.day.startswith("2026-11-23#")


def test_a_tombstone_keeps_nothing_and_expires_in_30_days(records):
    gone = records.write(tombstone("photos/a.jpg", NOW), records.write(CAPTIONED, None))
    assert as_json(gone) == {
        "image": "photos/a.jpg",
        "status": "deleted",
        "revision": 2,
        "expires_at": int(NOW.timestamp()) + 30 * 24 * 3600,
    }
    assert records.read("photos/a.jpg") == gone


def test_the_table_forgets_what_has_expired(aws):
    ttl = aws.dynamodb.describe_time_to_live(TableName=aws.table)["TimeToLiveDescription"]
    assert ttl == {"AttributeName": "expires_at", "TimeToLiveStatus": "ENABLED"}
