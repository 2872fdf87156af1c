"""The function inside Lambda's own runtime, without Docker; AWS is moto's."""

import importlib.util
import json
import os
import shutil
import socket

import pytest

from function.events import ObjectName
from infra.emulator import ROOT, emulate, find_emulator
from infra.template import Stack
from tests.local_stack import event

EVENTS = sorted(path.stem for path in (ROOT / "events").glob("*.json"))
PROGRAM = find_emulator()
pytestmark = pytest.mark.skipif(
    PROGRAM is None or importlib.util.find_spec("awslambdaric") is None,
    reason="Lambda's emulator is in aws-sam-cli, for Linux: make .venv-sam/run.stamp",
)


def environment(**differing):
    """What the function finds on Lambda."""
    local = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return local | Stack().properties("Captions")["Environment"]["Variables"] | differing


@pytest.fixture(scope="module")
def lambda_function(endpoint, bundle_folder):
    with emulate(PROGRAM, environment(BUNDLE=str(bundle_folder))) as emulator:
        yield emulator


@pytest.fixture
def upload(aws, photo):
    """A photo under the key that the events speak of; what the function then made of it."""
    name = ObjectName(**event("direct-object"))
    aws.s3.put_object(Bucket=name.bucket, Key=name.key, Body=photo, ContentType="image/jpeg")
    return lambda: aws.s3.head_object(Bucket=name.bucket, Key=name.key)["Metadata"]


def test_the_model_that_ships_is_ready_within_the_ten_seconds_that_lambda_gives(endpoint):
    with emulate(PROGRAM, environment()) as emulator:
        assert emulator.invoke(event("direct-image"))["caption"]
        (milliseconds,) = emulator.starts()
        assert 0 < milliseconds < 10_000


def test_it_starts_once_for_many_events(lambda_function):
    for _ in range(3):
        assert lambda_function.invoke(event("direct-image"))["status"] == "captioned"
    assert len(lambda_function.starts()) == 1


def test_an_upload_gets_its_caption(lambda_function, upload):
    assert lambda_function.invoke(event("s3-put")) is None
    assert upload()["caption"] == lambda_function.invoke(event("direct-object"))["caption"]


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_of_the_samples_is_answered(name, lambda_function, upload):
    answer = lambda_function.invoke(event(name))
    assert "errorMessage" not in (answer or {}), answer


def test_an_exception_is_an_error_in_json(lambda_function):
    answer = lambda_function.invoke({"no": "event"})
    assert answer["errorType"] == "UnknownEvent"
    assert answer["errorMessage"].startswith("expected an S3 notification")


def test_after_a_timeout_the_function_is_started_anew(bundle_folder):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        variables = environment(BUNDLE=str(bundle_folder), AWS_ENDPOINT_URL=url)
        with emulate(PROGRAM, variables, timeout=8) as emulator:
            assert "Task timed out after 8.00 seconds" in emulator.invoke(event("direct-object"))
            assert emulator.invoke(event("direct-image"))["status"] == "captioned"
            assert len(emulator.starts()) == 2


def test_a_bundle_that_was_tampered_with_is_reported_in_one_line(endpoint, bundle_folder, tmp_path):
    broken = shutil.copytree(bundle_folder, tmp_path / "bundle")
    (broken / "vocabulary.json").write_text(json.dumps(["<pad>"]))
    with emulate(PROGRAM, environment(BUNDLE=str(broken))) as emulator:
        answer = emulator.invoke(event("direct-image"))
    assert answer["errorType"].endswith("BundleError")
    assert answer["errorMessage"].startswith(f"{broken}/vocabulary.json: its sha256 is")
    assert "\n" not in answer["errorMessage"]
