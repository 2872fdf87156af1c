import base64
import json

import pytest

from function import web
from function.app import answer
from tests.local_stack import event


def request(method="POST", path="/captions", body=b""):
    asked = event("http-captions")
    asked["requestContext"]["http"] |= {"method": method, "path": path}
    return asked | {"rawPath": path, "body": base64.b64encode(body).decode()}


def test_a_posted_image_is_captioned(service):
    answered = answer(event("http-captions"), service)
    said = json.loads(answered["body"])
    assert (answered["statusCode"], answered["headers"]["content-type"]) == (200, "application/json")
    assert (said["status"], said["caption"]) == ("captioned", said["captions"][0]["text"])


def test_health_names_the_model(service):
    answered = answer(event("http-health"), service)
    assert (answered["statusCode"], json.loads(answered["body"])) == (200, {"status": "ok", "model": "tiny"})


@pytest.mark.parametrize(
    ("asked", "status", "detail"),
    [
        (request(body=b"no photo"), 422, "not a JPEG"),
        (request(body=b""), 422, "empty"),
        (request(path="/"), 404, "no such route: /"),
        (request(method="GET"), 405, "takes POST"),
        (request(body=bytes(web.LARGEST_BODY + 3)), 413, "at most 4,000,000 bytes"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_document(service, asked, status, detail):
    answered = answer(asked, service)
    problem = json.loads(answered["body"])
    assert answered["headers"]["content-type"] == "application/problem+json"
    assert answered["statusCode"] == problem["status"] == status
    assert detail in problem["detail"]
    assert problem["request_id"] == "JKJaXmPLvHcESHA="
    assert service.captioner.inferences == 0


def test_a_body_that_is_text_is_read_too(service):
    asked = event("http-captions") | {"body": "hello", "isBase64Encoded": False}
    assert answer(asked, service)["statusCode"] == 422
