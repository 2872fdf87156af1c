"""Whatever goes wrong with a request, as a problem document (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import (
    RequestUnsupportedContentType,
    RequestValidationError,
)

from function.bodies import NoPhoto, TooLarge, UnknownMediaType
from function.bundles import BundleError
from function.corrections import NoCaption, NoRecord
from function.gallery import BadCursor
from function.objects import ObjectUnavailable
from function.photos import UnreadablePhoto
from function.records import Overtaken
from function.schemas import Mistake, Problem

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
STATUS: dict[type[Exception], HTTPStatus] = {
    BadCursor: HTTPStatus.BAD_REQUEST,
    NoRecord: HTTPStatus.NOT_FOUND,
    NoCaption: HTTPStatus.CONFLICT,
    Overtaken: HTTPStatus.CONFLICT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnknownMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnreadablePhoto: HTTPStatus.UNPROCESSABLE_ENTITY,
    NoPhoto: HTTPStatus.UNPROCESSABLE_ENTITY,
    BundleError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ObjectUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # RFC 9110's, which Python 3.11 does not know yet


def problem(
    request: Mapping[str, Any], status: HTTPStatus, detail: str, errors: list[Mistake] | None = None, **headers: str
) -> Response[str]:
    """The answer where there is no other."""
    document = Problem(
        title=TITLES.get(status, status.phrase),
        status=status,
        detail=detail,
        request_id=request["requestContext"].get("requestId"),
        errors=errors,
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, MEDIA_TYPE, document.model_dump_json(), named)


def answer_problems(app: APIGatewayHttpResolver) -> None:
    """Lets the resolver answer every exception."""

    def known(error: Exception) -> Response[str]:
        status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
        if status >= 500:
            log.error("%s", error)
        return problem(app.current_event.raw_event, status, str(error))

    def invalid(error: RequestValidationError) -> Response[str]:
        errors = [Mistake(where=".".join(map(str, each["loc"])), what=each["msg"]) for each in error.errors()]
        detail = "; ".join(f"{each.where}: {each.what}" for each in errors)
        return problem(app.current_event.raw_event, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors)

    def no_json(error: RequestUnsupportedContentType) -> Response[str]:
        detail = "application/json is taken here"
        return problem(app.current_event.raw_event, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)

    def no_text(error: UnicodeDecodeError) -> Response[str]:
        return problem(app.current_event.raw_event, HTTPStatus.BAD_REQUEST, "the body is not UTF-8")

    def no_route(error: NotFoundError) -> Response[str]:
        request = app.current_event.raw_event
        path = app.current_event.path
        methods = sorted(route.method for route in app._static_routes if route.path == path)
        if methods:
            detail = f"{path} takes {' and '.join(methods)}"
            return problem(request, HTTPStatus.METHOD_NOT_ALLOWED, detail, Allow=", ".join(methods))
        return problem(request, HTTPStatus.NOT_FOUND, f"nothing is at {path}")

    def unforeseen(error: Exception) -> Response[str]:
        request = app.current_event.raw_event
        log.error("request %s: %r", request["requestContext"].get("requestId"), error, exc_info=error)
        return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault of the API; its log says more")

    app.exception_handler(list(STATUS))(known)
    app.exception_handler(RequestValidationError)(invalid)
    app.exception_handler(RequestUnsupportedContentType)(no_json)
    app.exception_handler(UnicodeDecodeError)(no_text)
    app.exception_handler(NotFoundError)(no_route)
    app.exception_handler(Exception)(unforeseen)
