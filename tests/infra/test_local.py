import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from function.events import ObjectName
from function.objects import settle
from infra.local import CannotStart, Screen, find_photos, is_captioned
from tests.local_stack import PHOTOS, ROOT
from tests.terminal import listen_to_control_c

KEYS = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}


@pytest.fixture
def command(bundle_folder, tmp_path):
    """Starts `make run`'s own command in a person's shell, with an AWS profile that must not be used."""
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-1\nendpoint_url = http://127.0.0.1:9\n")
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = real\naws_secret_access_key = real\n")
    theirs = {
        "AWS_PROFILE": "work",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    started = []

    def start(**environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "infra"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "BUNDLE": str(bundle_folder), **theirs, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=listen_to_control_c,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def run(command, **environment):
    process = command(ONCE="1", **environment)
    output, _ = process.communicate(timeout=120)
    assert "Traceback" not in output
    return process.returncode, output


def wait_for(process, pattern):
    """Reads the output up to a line that has the pattern; the match."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"no {pattern} in {''.join(seen)}")


def test_the_samples_are_captioned_one_by_one(command):
    status, output = run(command)
    assert status == 0
    for path in PHOTOS.glob("*.jpg"):
        assert re.search(rf"^  {path.name} +\S.* \(\d+ ms\)$", output, re.MULTILINE), output
    assert "7 of 7 photos have captions" in output


def test_a_persons_folder_with_any_names(command, tmp_path):
    folder = tmp_path / "my photos" / "sommer für alle"
    folder.mkdir(parents=True)
    shutil.copy(PHOTOS / "coffee.jpg", folder / "a+b é.JPG")
    shutil.copy(PHOTOS / "rocket.jpg", folder.parent / "100% rocket.jpeg")
    (folder / "notes.txt").write_text("not looked at")
    status, output = run(command, PHOTOS=str(folder.parent))
    assert status == 0
    assert "sommer für alle/a+b é.JPG" in output
    assert "2 of 2 photos have captions" in output


def test_what_is_no_photo_gets_its_reason_and_the_rest_goes_on(command, tmp_path):
    (tmp_path / "notes.jpg").write_text("no photo")
    status, output = run(command, PHOTOS=f"'{tmp_path}/notes.jpg' {PHOTOS / 'rocket.jpg'}")
    assert status == 1
    assert re.search(r"notes\.jpg +rejected: \S+", output)
    assert "1 of 2 photos have captions" in output


def test_a_file_that_cannot_be_read_is_named_and_the_rest_goes_on(command):
    status, output = run(command, PHOTOS=f"/proc/self/mem {PHOTOS / 'rocket.jpg'}")
    assert status == 1
    assert re.search(r"proc/self/mem +cannot be read: Input/output error", output)
    assert "1 of 2 photos have captions" in output


def test_a_taken_port_is_told_and_nothing_is_begun(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = run(command, PORT=str(port))
    assert (status, output) == (2, f"cannot start: port {port} on 127.0.0.1: Address already in use\n")


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"PORT": "http"}, "PORT=http: expected a number up to 65535"),
        ({"PORT": "70000"}, "PORT=70000: expected a number up to 65535"),
        ({"PHOTOS": "/nowhere/a.jpg"}, "/nowhere/a.jpg: no such file or folder"),
        ({"PHOTOS": "'a.jpg"}, "PHOTOS='a.jpg: No closing quotation"),
        ({"BUNDLE": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(command, environment, line):
    status, output = run(command, **environment)
    assert status == 2
    assert output.startswith("cannot start: ")
    assert line in output
    assert output.count("\n") == 1


def test_an_empty_folder_is_told(command, tmp_path):
    (tmp_path / "empty").mkdir()
    status, output = run(command, PHOTOS=str(tmp_path / "empty"))
    assert status == 2
    assert output.startswith(f"cannot start: {tmp_path}/empty: no photos in this folder")


@pytest.mark.parametrize("moment", ["importing", "captioning"])
def test_ctrl_c_in_the_middle_ends_it_all_without_a_traceback(command, tmp_path, moment):
    for number in range(300):
        shutil.copy(PHOTOS / "rocket.jpg", tmp_path / f"{number}.jpg")
    process = command(ONCE="1", PHOTOS=str(tmp_path))
    port = None
    if moment == "captioning":
        port = int(wait_for(process, r"http://127\.0\.0\.1:(\d+)")[1])
        wait_for(process, r" ms\)$")
    else:
        wait_for_import(process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.endswith("stopped\n")
    assert "Traceback" not in output
    if port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def wait_for_import(process):
    """Until the interpreter is up and reads our modules: from then on Ctrl-C is ours to handle."""
    for _ in range(500):
        if "numpy" in Path(f"/proc/{process.pid}/maps").read_text():
            return
        time.sleep(0.01)
    raise AssertionError("numpy was not imported")


def test_it_goes_on_serving_until_ctrl_c(command):
    process = command(PHOTOS=str(PHOTOS / "rocket.jpg"))
    endpoint = wait_for(process, r"--endpoint-url (http://127\.0\.0\.1:\d+)")[1]
    s3 = boto3.client("s3", endpoint_url=endpoint, **KEYS)
    (bucket,) = (each["Name"] for each in s3.list_buckets()["Buckets"])
    s3.put_object(Bucket=bucket, Key="later.jpg", Body=(PHOTOS / "coffee.jpg").read_bytes())
    wait_for(process, r"^  later\.jpg +\S.* ms\)$")
    s3.delete_object(Bucket=bucket, Key="later.jpg")
    wait_for(process, r"^  later\.jpg +deleted")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "\nstopped\n")


def test_a_message_that_fails_is_told_five_times_and_then_rests_with_the_dead_letters(command):
    process = command(PHOTOS=str(PHOTOS / "rocket.jpg"))
    endpoint = wait_for(process, r"--endpoint-url (http://127\.0\.0\.1:\d+)")[1]
    sqs = boto3.client("sqs", endpoint_url=endpoint, **KEYS)
    queues = {url.rsplit("/", 1)[1]: url for url in sqs.list_queues()["QueueUrls"]}
    sqs.send_message(QueueUrl=queues["Uploads"], MessageBody="no JSON")
    for _ in range(5):
        wait_for(process, r"^  ! message \S+: UnknownEvent: expected an S3 notification")
    for _ in range(50):
        if messages := sqs.receive_message(QueueUrl=queues["DeadLetters"]).get("Messages"):
            break
        time.sleep(0.1)
    assert [message["Body"] for message in messages] == ["no JSON"]


def test_a_photo_is_done_only_with_its_record_and_its_metadata(aws, service, photo, capsys):
    name, screen = ObjectName(aws.bucket, "a.jpg"), Screen(width=5)
    aws.s3.put_object(Bucket=name.bucket, Key=name.key, Body=photo)
    assert not is_captioned(service, name, screen)
    settle(name, replace(service, write_back="none"))
    assert not is_captioned(service, name, screen)
    settle(name, service)
    assert is_captioned(service, name, screen)
    assert capsys.readouterr().out == "  a.jpg  has no record\n  a.jpg  has no caption in its metadata\n"


def test_photos_may_be_one_path_or_several(tmp_path):
    (tmp_path / "a b").mkdir()
    for name in ("a b/x.jpg", "a b/y.png", "z.txt"):
        (tmp_path / name).touch()
    assert set(find_photos(f"{tmp_path}/a b")) == {"x.jpg", "y.png"}
    assert set(find_photos(f"'{tmp_path}/a b/x.jpg' {tmp_path}/z.txt")) == {"a b/x.jpg", "z.txt"}
    assert set(find_photos(f"{tmp_path}/z.txt {tmp_path}/z.txt")) == {"z.txt"}
    with pytest.raises(CannotStart, match="no such file"):
        find_photos(f"{tmp_path}/nothing.jpg")
