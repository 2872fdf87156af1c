"""An HTTP API of API Gateway, on loopback: requests become payloads of version 2.0, a handler's answers responses.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler

from infra.loopback import serving

LARGEST_PAYLOAD = 6 * 1024 * 1024  # bytes, Lambda's, the whole event as JSON
TEXTS = ("text/", "application/json", "application/javascript", "application/xml")  # all else comes in base64


class QuietRequestHandler(WSGIRequestHandler):
    """Says nothing of requests; what goes wrong is still told."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@contextmanager
def serve(handler: Callable[[Any], Any]) -> Iterator[str]:
    """The API on a port that is free; its URL. The handler gets one request at a time, as a function of Lambda does."""
    one_at_a_time = Lock()

    def answer(request: Request) -> Response:
        if request.host not in hosts:  # no page elsewhere gets in by a DNS of its own
            return _message(421, "Misdirected Request")
        event = as_event(request)
        if len(json.dumps(event)) > LARGEST_PAYLOAD:
            return _message(413, "Request Entity Too Large")
        try:
            with one_at_a_time:
                return as_response(handler(event))
        except Exception:
            return _message(500, "Internal Server Error")

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
    with serving(listening, Request.application(answer), QuietRequestHandler) as url:
        yield url


def as_event(request: Request) -> dict[str, Any]:
    """The payload of a request. Names of headers are lower case, the path is decoded, the query is there both ways."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name.lower()] = f"{headers[name.lower()]},{value}" if name.lower() in headers else value
    cookies = headers.pop("cookie", "")
    body = request.get_data()
    is_text = headers.get("content-type", "").lower().startswith(TEXTS)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": request.path,
        "rawQueryString": request.query_string.decode(),
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": request.host,
            "domainPrefix": "local",
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": str(request.environ["SERVER_PROTOCOL"]),
                "sourceIp": request.remote_addr,
                "userAgent": request.user_agent.string,
            },
            "requestId": uuid.uuid4().hex[:16],
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
            "timeEpoch": int(time.time() * 1000),
        },
        "isBase64Encoded": bool(body) and not is_text,
    }
    if request.args:
        event["queryStringParameters"] = {name: ",".join(values) for name, values in request.args.lists()}
    if cookies:
        event["cookies"] = cookies.split("; ")
    if body:
        event["body"] = body.decode(errors="replace") if is_text else base64.b64encode(body).decode()
    return event


def as_response(answer: dict[str, Any]) -> Response:
    """The response that a handler's answer asks for."""
    body = answer.get("body") or ""
    data = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
    response = Response(data, answer["statusCode"], answer.get("headers"))
    for cookie in answer.get("cookies", ()):
        response.headers.add("set-cookie", cookie)
    return response


def _message(status: int, message: str) -> Response:
    """What API Gateway says by itself."""
    return Response(json.dumps({"message": message}), status, content_type="application/json")
