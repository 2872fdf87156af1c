"""The HTTP API, by the payloads of API Gateway."""

import base64
import json

import pytest

from function.api import Site, respond
from function.bodies import LARGEST_BODY
from function.events import ObjectName
from function.objects import settle
from tests.local_stack import event

KEY = "cats/a b.jpg"


@pytest.fixture
def call(aws, service):
    """Asks the API, signed in where need be, and gives its answer with the body read."""

    def ask(method, path, query="", body=b"", auth="LOCAL", signed=True, **headers):
        asked = event("http-captions")
        asked["requestContext"]["http"] |= {"method": method, "path": path}
        if signed:
            asked["requestContext"]["authorizer"] = {"iam": {"accountId": "123456789012"}}
        asked |= {"rawPath": path, "rawQueryString": query, "routeKey": "$default"}
        asked["queryStringParameters"] = dict(pair.split("=", 1) for pair in query.split("&")) if query else None
        asked["headers"] |= headers
        asked["body"] = base64.b64encode(body).decode()
        answer = respond(asked, service, Site(aws.bucket, "cats/", auth))
        text = answer.get("body") or ""
        if answer.get("isBase64Encoded"):
            text = base64.b64decode(text).decode("latin-1")
        kind = answer["headers"].get("Content-Type", "")
        return answer["statusCode"], json.loads(text) if "json" in str(kind) and text else text, answer["headers"]

    return ask


@pytest.fixture
def captioned(aws, service, photo):
    aws.s3.put_object(Bucket=aws.bucket, Key=KEY, Body=photo)
    settle(ObjectName(aws.bucket, KEY), service)


def test_a_posted_photo_is_captioned(call, photo):
    status, said, _ = call("POST", "/captions", body=photo)
    assert (status, said["caption"]) == (200, said["captions"][0]["text"])


def test_as_many_captions_as_beams_and_where_the_model_looked(call, photo):
    _, said, _ = call("POST", "/captions", "beams=1&explain=true", photo)
    assert len(said["captions"]) == 1
    assert all(abs(sum(map(sum, word["weights"])) - 1) < 0.01 for word in said["attention"])


def test_a_shell_gets_the_bare_sentence(call, photo):
    _, said, _ = call("POST", "/captions", body=photo)
    status, text, _ = call("POST", "/captions", body=photo, accept="text/plain")
    assert (status, text) == (200, said["caption"] + "\n")


def test_a_form_is_taken_too(call, photo):
    part = b'Content-Disposition: form-data; name="photo"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = b"--x1y2\r\n" + part + photo + b"\r\n--x1y2--\r\n"
    status, said, _ = call("POST", "/captions", body=body, **{"content-type": "multipart/form-data; boundary=x1y2"})
    assert (status, said["caption"]) == (200, said["captions"][0]["text"])


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (("POST", "/captions", "", b"no photo"), 422),
        (("POST", "/captions", "beams=0", b"no photo"), 422),
        (("POST", "/captions", "", bytes(LARGEST_BODY + 3)), 413),
        (("GET", "/nowhere"), 404),
        (("GET", "/captions", "cursor=x"), 400),
        (("GET", "/captions/item", "key=cats/none.jpg"), 404),
        (("GET", "/captions/item", "key=dogs/a.jpg"), 404),
        (("GET", "/captions/item"), 422),
    ],
)
def test_what_cannot_be_answered_is_a_problem_with_a_request_id(call, asked, status):
    answered, problem, headers = call(*asked)
    assert (answered, problem["status"]) == (status, status)
    assert "application/problem+json" in str(headers["Content-Type"])
    assert problem["request_id"] == "JKJaXmPLvHcESHA="


def test_a_correction_stays_and_is_listed(call, captioned, aws, service):
    status, item, _ = call("PUT", "/captions/item", f"key={KEY}", b'{"caption": "our cat Chelsea"}', **JSON)
    assert (status, item["caption"], item["caption_by"]) == (200, "our cat Chelsea", "person")
    assert item.get("confidence") is None
    assert settle(ObjectName(aws.bucket, KEY), service).caption == "our cat Chelsea"
    assert aws.s3.head_object(Bucket=aws.bucket, Key=KEY)["Metadata"]["caption"] == "our cat Chelsea"
    _, page, _ = call("GET", "/captions")
    assert [(i["key"], i["caption"]) for i in page["items"]] == [(KEY, "our cat Chelsea")]
    assert "Signature=" in page["items"][0]["image_url"]


JSON = {"content-type": "application/json"}


def test_a_deleted_caption_is_gone_and_the_photo_stays(call, captioned, aws, photo):
    assert call("DELETE", "/captions/item", f"key={KEY}")[0] == 204
    assert call("GET", "/captions/item", f"key={KEY}")[0] == 404
    held = aws.s3.get_object(Bucket=aws.bucket, Key=KEY)
    assert held["Body"].read() == photo
    assert "caption" not in held["Metadata"]


def test_an_upload_is_bound_to_one_key_type_and_size(call):
    wish = {"filename": "../My cat.jpg", "content_type": "image/jpeg", "bytes": 5_000_000}
    status, form, _ = call("POST", "/uploads", body=json.dumps(wish).encode(), **JSON)
    assert status == 200
    assert form["key"].startswith("cats/")
    assert ".." not in form["key"]
    policy = json.loads(base64.b64decode(form["fields"]["policy"]))["conditions"]
    assert ["content-length-range", 5_000_000, 5_000_000] in policy
    assert {"key": form["key"]} in policy
    assert {"Content-Type": "image/jpeg"} in policy


@pytest.mark.parametrize("path", ["/captions/item", "/uploads", "/captions"])
def test_a_stranger_is_turned_away(call, path):
    method = "POST" if path == "/uploads" else "GET"
    assert call(method, path, auth="AWS_IAM", signed=False)[0] == 401


def test_a_demo_captions_and_does_nothing_else(call, captioned, photo):
    assert call("POST", "/captions", body=photo, auth="NONE", signed=False)[0] == 200
    for method, path in [("GET", "/captions/item"), ("DELETE", "/captions/item"), ("PUT", "/captions/item")]:
        assert call(method, path, f"key={KEY}", auth="NONE", signed=False)[0] == 404
    assert call("POST", "/uploads", auth="NONE", signed=False)[0] == 404


def test_no_page_where_a_browser_cannot_sign(call):
    assert call("GET", "/docs", auth="AWS_IAM")[0] == 404
    assert call("GET", "/docs")[0] == 200


def test_the_document_names_every_route_of_what_is_served(call):
    _, whole, _ = call("GET", "/openapi.json")
    _, demo, _ = call("GET", "/openapi.json", auth="NONE")
    assert set(whole["paths"]) == {"/captions", "/uploads", "/captions/item", "/health"}
    assert set(demo["paths"]) == {"/captions", "/health"}
    assert set(demo["paths"]["/captions"]) == {"post"}
