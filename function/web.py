"""HTTP requests that API Gateway hands over: the payload of an HTTP API, version 2.0.

`GET /health` says which model is here, `POST /captions` captions the image that is its body. Errors are problem
documents (RFC 9457). https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from function.captioner import Captioner
from function.objects import describe

LARGEST_BODY = 4_000_000  # bytes: in base64, and with its headers, Lambda's payload of 6 MB
PHRASES = {404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large", 422: "Unprocessable Content"}
ROUTES = {"/health": "GET", "/captions": "POST"}


def respond(request: Mapping[str, Any], captioner: Captioner) -> dict[str, Any]:
    """The answer to a request, as API Gateway takes it."""
    path = request["rawPath"]
    method = request["requestContext"]["http"]["method"]
    if path not in ROUTES:
        return _problem(request, 404, f"no such route: {path}")
    if method != ROUTES[path]:
        return _problem(request, 405, f"{path} takes {ROUTES[path]}", allow=ROUTES[path])
    if path == "/health":
        return _answer(200, {"status": "ok", "model": captioner.name})
    body = request.get("body") or ""
    if len(body) * (3 / 4 if request.get("isBase64Encoded") else 1) > LARGEST_BODY:
        return _problem(request, 413, f"an image of at most {LARGEST_BODY:,} bytes is taken here")
    data = base64.b64decode(body) if request.get("isBase64Encoded") else body.encode()
    described = describe(data, captioner)
    if described["status"] == "rejected":
        return _problem(request, 422, described["reason"])
    return _answer(200, described)


def _problem(request: Mapping[str, Any], status: int, detail: str, **headers: str) -> dict[str, Any]:
    identifier = request["requestContext"].get("requestId")
    problem = {"title": PHRASES[status], "status": status, "detail": detail, "request_id": identifier}
    return _answer(status, problem, **{"content-type": "application/problem+json"}, **headers)


def _answer(status: int, body: Mapping[str, Any], **headers: str) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", "cache-control": "no-store", **headers},
        "body": json.dumps(body),
    }
