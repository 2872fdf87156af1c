"""`python -m function --url`: a deployed API, asked from a terminal; here it is on loopback, in front of moto."""

import io
import json

import pytest
from PIL import Image

from function import __main__ as command
from function import client as client_module
from function.api import Site, respond
from function.bodies import LARGEST_BODY
from function.client import ApiError, Client
from function.events import ObjectName
from function.objects import settle
from infra.gateway import serve


@pytest.fixture
def api(aws, service):
    """The API's address; whoever asks for an upload's record has the function look at the photo first."""

    def handle(event):
        key = (event.get("queryStringParameters") or {}).get("key")
        if key:
            settle(ObjectName(aws.bucket, key), service)
        return respond(event, service, Site(aws.bucket, "in/", "LOCAL"))

    with serve(handle) as url:
        yield url


@pytest.fixture
def large_photo():
    """A PNG of noise, larger than a request may be."""
    file = io.BytesIO()
    Image.effect_noise((2400, 2400), 100).save(file, "PNG")
    assert len(file.getvalue()) > LARGEST_BODY
    return file.getvalue()


@pytest.fixture
def paths(tmp_path, photo):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(photo)
    bad.write_bytes(b"no photo")
    return good, bad


def run(capsys, *arguments):
    status = command.main([*map(str, arguments)])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_answer_is_the_same_as_that_of_a_model_here(api, bundle_folder, paths, capsys):
    (_, here), (_, there) = (run(capsys, *chosen, *paths) for chosen in (["--bundle", bundle_folder], ["--url", api]))
    for answer in (here[0], there[0]):
        assert answer.pop("milliseconds") > 0
    assert here == there
    assert list(here[0]) == list(there[0])


def test_the_picture_is_the_same_too(api, bundle_folder, paths, tmp_path, capsys):
    pictures = [tmp_path / "here.png", tmp_path / "there.png"]
    for chosen, picture in zip((["--bundle", bundle_folder], ["--url", api]), pictures, strict=True):
        assert run(capsys, *chosen, paths[0], "--explain", picture)[0] == 0
    here, there = (Image.open(picture).convert("L") for picture in pictures)
    assert here.size == there.size


def test_a_photo_too_large_for_a_request_goes_straight_to_the_bucket(api, aws, large_photo, monkeypatch):
    monkeypatch.setattr(client_module, "PAUSE", 0)
    record = Client(api).caption(large_photo)
    assert record["caption"]
    held = aws.s3.get_object(Bucket=aws.bucket, Key=record["key"])
    assert (held["Body"].read(), held["ContentType"]) == (large_photo, "image/png")


def test_what_is_larger_than_any_photo_is_not_sent(monkeypatch, photo):
    monkeypatch.setattr(client_module, "LARGEST", LARGEST_BODY + 1)
    with pytest.raises(ApiError, match="too large for a photo"):
        Client("https://nowhere.invalid").caption(photo + bytes(LARGEST_BODY))


def test_the_apis_reason_is_the_error(api, photo):
    with pytest.raises(ApiError, match=r"^the API answered 422: the JPEG is damaged"):
        Client(api).caption(photo[:4000])


def test_an_api_that_is_not_there_is_an_error_for_each_image(paths, capsys):
    status, (answer, _) = run(capsys, "--url", "http://127.0.0.1:9", *paths)
    assert status == 1
    assert answer["error"].startswith("http://127.0.0.1:9 cannot be reached")


@pytest.mark.parametrize("url", ["ftp://example.org", "http://example.org", "example.org", ""])
def test_credentials_go_nowhere_in_the_clear(url):
    with pytest.raises(ValueError, match=r"expected https://"):
        Client(url)


@pytest.fixture
def sent(monkeypatch):
    """The headers of what would have been sent, and how the address ended."""
    requests = []

    def keep(_, request):
        requests.append(request)
        return 200, b'{"caption": "a cat", "captions": []}'

    monkeypatch.setattr(Client, "_send", keep)
    return requests


def test_a_request_is_signed_with_the_persons_credentials(endpoint, sent, photo):
    Client("https://a1b2.execute-api.eu-west-1.amazonaws.com").caption(photo, beams=2)
    (request,) = sent
    assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=local/")
    assert "/eu-west-1/execute-api/aws4_request" in request.headers["Authorization"]
    assert request.url.endswith("/captions?beams=2")


def test_a_token_goes_before_credentials(sent, photo):
    Client("https://captions.example.org", token="a-token").caption(photo)
    assert sent[0].headers["Authorization"] == "Bearer a-token"


def test_a_token_comes_from_the_environment(sent, paths, capsys, monkeypatch):
    monkeypatch.setenv("CAPTIONS_TOKEN", "a-token")
    run(capsys, "--url", "https://captions.example.org", paths[0])
    assert sent[0].headers["Authorization"] == "Bearer a-token"
