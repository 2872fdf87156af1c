"""The API as somebody meets it who should not have what they ask for."""

import base64
import json
import re
import socket
from datetime import UTC, datetime

import pytest

from function.api import Site, respond
from function.events import ObjectName
from function.objects import settle
from function.records import Record, stamp
from infra.template import Stack
from tests.local_stack import event

JSON = {"content-type": "application/json"}
ROUTES = [
    ("POST", "/captions"),
    ("GET", "/captions"),
    ("POST", "/uploads"),
    ("GET", "/captions/item"),
    ("PUT", "/captions/item"),
    ("DELETE", "/captions/item"),
]


@pytest.fixture
def knock(aws, service):
    """A request as API Gateway words it; the status, and what the answer says."""

    def ask(method, path, query=None, body=b"", auth="LOCAL", prefix="in/", **fields):
        asked = event("http-captions")
        asked["requestContext"]["http"] |= {"method": method, "path": path}
        asked["requestContext"].pop("authorizer", None)
        asked["requestContext"] |= fields.pop("context", {})
        asked["headers"] |= fields
        asked |= {"rawPath": path, "queryStringParameters": query, "body": base64.b64encode(body).decode()}
        answer = respond(asked, service, Site(aws.bucket, prefix, auth))
        return answer["statusCode"], answer.get("body", "")

    return ask


@pytest.fixture
def elsewhere(aws, service, photo):
    """Photos and records that are in the same table, and not for this API: another prefix, another bucket."""
    aws.s3.put_object(Bucket=aws.bucket, Key="private/a.jpg", Body=photo)
    settle(ObjectName(aws.bucket, "private/a.jpg"), service)
    other = Record(image="other-bucket/in/a.jpg", status="captioned", caption="a secret", caption_by="model")
    service.records.write(stamp(other, datetime.now(UTC)), None)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("auth", ["AWS_IAM", "COGNITO", "JWT"])
def test_without_api_gateways_word_nobody_gets_in(knock, auth, method, path):
    """Even where its routes were left open by mistake; and what a caller claims in headers is no such word."""
    claims = {"authorization": "Bearer anything", "x-amzn-iam": "admin", "x-forwarded-user": "admin"}
    status, said = knock(method, path, {"key": "in/a.jpg"}, auth=auth, **claims)
    assert (status, json.loads(said)["title"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("auth", "authorizer"), [("AWS_IAM", {"jwt": {"claims": {}}}), ("COGNITO", {"iam": {"accountId": "1"}})]
)
def test_the_word_for_one_lock_does_not_open_another(knock, auth, authorizer):
    assert knock("GET", "/captions", auth=auth, context={"authorizer": authorizer})[0] == 401


@pytest.mark.parametrize(
    "key",
    [
        "private/a.jpg",
        "in/../private/a.jpg",
        "/in/a.jpg",
        "../other-bucket/in/a.jpg",
        "other-bucket/in/a.jpg",
        "in/" + "a" * 1100,
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_key_leads_out_of_the_bucket_or_its_prefix(knock, elsewhere, aws, service, method, key):
    status, said = knock(
        method, "/captions/item", {"key": key}, b'{"caption": "x"}', **{"content-type": "application/json"}
    )
    assert status in (404, 422)
    assert "secret" not in said
    assert service.records.read(f"{aws.bucket}/private/a.jpg").caption_by == "model"


def test_the_list_shows_nothing_of_other_prefixes_and_buckets(knock, elsewhere):
    status, said = knock("GET", "/captions")
    assert (status, json.loads(said)["items"]) == (200, [])


@pytest.mark.parametrize(
    "place", [{"image": "other-bucket/in/a.jpg"}, {"day": "2026-11-24#0", "at": "9"}, [1], "x", {"a": {"b": {}}}]
)
def test_a_cursor_of_ones_own_making_shows_no_more(knock, elsewhere, place):
    cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")
    status, said = knock("GET", "/captions", {"cursor": cursor})
    assert status in (200, 400)
    assert "secret" not in said


@pytest.mark.parametrize("filename", ["../../private/a.jpg", "/etc/passwd", "a\\..\\b.jpg", "<script>.jpg", "a" * 255])
def test_an_uploads_key_is_the_apis_choice(knock, filename):
    wish = {"filename": filename, "content_type": "image/jpeg", "bytes": 10}
    status, said = knock("POST", "/uploads", body=json.dumps(wish).encode(), **JSON)
    assert status == 200
    assert re.fullmatch(r"in/[0-9a-f]{32}/[\w.-]{1,100}", json.loads(said)["key"])


@pytest.mark.parametrize("wish", [{"content_type": "text/html"}, {"bytes": 10**9}, {"key": "in/a.jpg"}, {"bytes": 0}])
def test_a_form_is_made_for_photos_alone(knock, wish):
    whole = {"filename": "a.jpg", "content_type": "image/jpeg", "bytes": 10} | wish
    said = knock("POST", "/uploads", body=json.dumps(whole).encode(), **JSON)
    assert said[0] == 422


@pytest.mark.parametrize(
    "body",
    [
        b'{"url": "http://169.254.169.254/latest/meta-data/"}',
        b"http://127.0.0.1:9/a.jpg",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/"/></svg>',
    ],
)
def test_it_fetches_no_address(knock, body, monkeypatch):
    def dial(*_, **__):
        raise AssertionError("it called somebody")

    monkeypatch.setattr(socket.socket, "connect", dial)
    assert knock("POST", "/captions", body=body)[0] in (415, 422)


def test_an_open_api_has_no_photos_at_all(knock, elsewhere):
    for method, path in ROUTES[1:]:
        assert knock(method, path, {"key": "private/a.jpg"}, auth="NONE", prefix="")[0] in (404, 405)


@pytest.mark.parametrize("auth", ["COGNITO", "NONE"])
def test_every_route_of_the_template_leads_somewhere(knock, auth):
    """The routes that API Gateway lets anybody call are the function's, and no others."""
    stack = Stack(parameters={"AuthType": auth})
    routes = [stack.properties(name) for name in stack.resources if stack.type(name) == "AWS::ApiGatewayV2::Route"]
    open_to_all = [route["RouteKey"] for route in routes if route["AuthorizationType"] == "NONE"]
    files = {"/page/{proxy+}": "/page/page.js", "/docs/{proxy+}": "/docs/swagger-ui.min.css"}
    for key in open_to_all:
        method, path = key.split()
        assert knock(method, files.get(path, path), auth=auth)[0] not in (401, 404, 405)
    assert ("POST /captions" in open_to_all) == (auth == "NONE")
