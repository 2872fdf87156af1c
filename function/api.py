"""The HTTP API: requests that API Gateway hands over as payloads of an HTTP API, version 2.0.

Who may call is said by AUTH and checked by API Gateway; what it has not checked is refused here too. What is not
served under an AUTH has no route at all. Whatever goes wrong is answered by a problem document (RFC 9457).
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from http import HTTPStatus
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, CORSConfig, Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from function import pages
from function.bodies import LARGEST_BODY, read_body
from function.corrections import NoRecord, correct, find, forget
from function.events import ObjectName
from function.gallery import newest, read_cursor, write_cursor
from function.objects import LARGEST, Service, describe
from function.openapi import PHOTO_BODY, describe_api, responses
from function.photos import MEDIA_TYPES, UnreadablePhoto
from function.problems import answer_problems, problem
from function.records import Record, as_json
from function.schemas import Correction, Described, Health, Item, Page, Upload, UploadWish
from function.uploads import FORM_LIFE, new_key, origin, sign_link, sign_upload

Auth = Literal["AWS_IAM", "COGNITO", "JWT", "NONE", "LOCAL"]  # LOCAL: `make run`, where nobody signs in
CHECKED = {"AWS_IAM": "iam", "COGNITO": "jwt", "JWT": "jwt"}  # what API Gateway then says of the caller
CHALLENGES = {"AWS_IAM": "AWS4-HMAC-SHA256", "COGNITO": "Bearer", "JWT": "Bearer"}
OPEN_TO_ALL = re.compile("/|/health|/openapi.json|/docs|/(page|docs)/.*")

JSON, TEXT = "application/json", "text/plain"
MOST_BEAMS = 10
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": pages.NOTHING,
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
}

LONGEST_KEY = 1024  # bytes
Key = Annotated[
    str,
    Query(description="The key of a photo in the bucket.", min_length=1, max_length=LONGEST_KEY, examples=["a/b.jpg"]),
]


@dataclass(frozen=True)
class Site:
    """Where the API stands."""

    bucket: str
    prefix: str  # of all keys that the API knows of
    auth: Auth
    origins: tuple[str, ...] = ()  # of pages elsewhere that may call
    sign_in: str | None = None  # with COGNITO: the address of its pages, and the page as it knows it
    client_id: str | None = None

    @property
    def has_page(self) -> bool:
        return self.auth != "AWS_IAM"  # a browser cannot sign

    @property
    def has_photos(self) -> bool:
        return self.auth != "NONE"


@cache
def deployed_site() -> Site:
    """What the environment says: BUCKET, UPLOAD_PREFIX, AUTH, ALLOW_ORIGINS, COGNITO_DOMAIN, COGNITO_CLIENT_ID.

    Raises KeyError where one of the first three is missing, ValueError for an AUTH that is not known.
    """
    match os.environ["AUTH"]:
        case "AWS_IAM" | "COGNITO" | "JWT" | "NONE" | "LOCAL" as auth:
            return Site(
                bucket=os.environ["BUCKET"],
                prefix=os.environ["UPLOAD_PREFIX"],
                auth=auth,
                origins=tuple(filter(None, os.environ.get("ALLOW_ORIGINS", "").split(","))),
                sign_in=os.environ.get("COGNITO_DOMAIN"),
                client_id=os.environ.get("COGNITO_CLIENT_ID"),
            )
        case auth:
            raise ValueError(f"AUTH={auth}: expected AWS_IAM, COGNITO, JWT or NONE")


def respond(request: Mapping[str, Any], service: Service, site: Site) -> dict[str, Any]:
    """The answer to a request, as API Gateway takes it."""
    app = _resolver(service, site)
    answer: dict[str, Any]
    if refused := _refused(request, site):
        answer = {"statusCode": refused.status_code, "headers": refused.headers, "body": refused.body}
    else:
        answer = app.resolve(request, None)  # type: ignore[arg-type] # Lambda's context is not used
    answer["headers"] = HEADERS | answer["headers"]
    return answer


def _refused(request: Mapping[str, Any], site: Site) -> Response[str] | None:
    """The answer to a caller whom API Gateway should have checked and has not, and to a form where JSON is taken."""
    context = request["requestContext"]
    if request["rawPath"] != "/captions" and request["headers"].get("content-type", "").startswith("multipart/"):
        # Powertools reads forms before it asks whether a route takes any, and fails at one that is malformed.
        return problem(request, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "application/json is taken here")
    checked = CHECKED.get(site.auth)
    open_to_all = OPEN_TO_ALL.fullmatch(request["rawPath"]) or context["http"]["method"] == "OPTIONS"
    if checked is None or open_to_all or checked in context.get("authorizer", ()):
        return None
    detail = "this API answers callers who have signed in"
    return problem(request, HTTPStatus.UNAUTHORIZED, detail, WWW_Authenticate=CHALLENGES[site.auth])


@lru_cache(maxsize=1)
def _resolver(service: Service, site: Site) -> APIGatewayHttpResolver:
    """All routes there are under the site's AUTH."""
    cors = (
        CORSConfig(site.origins[0], list(site.origins[1:]), ["authorization"], max_age=3600) if site.origins else None
    )
    app = APIGatewayHttpResolver(cors=cors, enable_validation=True)
    answer_problems(app)
    _caption_routes(app, service)
    if site.has_photos:
        _photo_routes(app, service, site)
    if site.has_page:
        _page_routes(app, service, site)
    _own_routes(app, service, site)
    return app


def _caption_routes(app: APIGatewayHttpResolver, service: Service) -> None:
    said = {JSON: {"model": Described}, TEXT: {"schema": {"type": "string"}, "example": "a grey cat\n"}}

    @app.post(
        "/captions",
        summary="Caption a photo",
        description="Nothing is stored. With `Accept: text/plain` the answer is the best caption and nothing else.",
        operation_id="caption",
        tags=["captions"],
        openapi_extensions=PHOTO_BODY,
        responses=responses(200, {"description": "Its captions.", "content": said}, 413, 415, 422),
    )
    def caption(
        beams: Annotated[
            int | None,
            Query(description="How many captions to consider; by default the model's own number.", ge=1, le=MOST_BEAMS),
        ] = None,
        explain: Annotated[bool, Query(description="Say too where the model looked for each word.")] = False,
    ) -> Response[Any]:
        request = app.current_event.raw_event
        described = describe(read_body(request), service.captioner, beams, explain, service.measure)
        if described["status"] == "rejected":
            raise UnreadablePhoto(described["reason"])
        if _prefers_text(request["headers"].get("accept", "")):
            return Response(200, f"{TEXT}; charset=utf-8", f"{described['caption']}\n")
        return Response(200, JSON, Described(**described).model_dump_json())


def _photo_routes(app: APIGatewayHttpResolver, service: Service, site: Site) -> None:
    def name_of(key: str) -> ObjectName:
        if not key.startswith(site.prefix) or len(key.encode()) > LONGEST_KEY:
            raise NoRecord(f"no record of {key}")
        return ObjectName(site.bucket, key)

    def item_of(record: Record) -> Item:
        name = ObjectName(site.bucket, record.image.removeprefix(f"{site.bucket}/"))
        return Item(key=name.key, image_url=sign_link(service.s3, name, record.format), **as_json(record))

    @app.post(
        "/uploads",
        summary="Upload a photo straight to the bucket",
        description="For photos that are too large for `POST /captions`, and for those that are to stay.",
        operation_id="upload",
        tags=["photos"],
        responses=responses(200, {"description": "The form that takes it."}, 400, 415, 422),
    )
    def upload(wish: UploadWish) -> Upload:
        name = ObjectName(site.bucket, new_key(site.prefix, wish.filename))
        url, fields = sign_upload(service.s3, name, wish.content_type, wish.bytes)
        return Upload(key=name.key, url=url, fields=fields, expires_in=FORM_LIFE)

    @app.get(
        "/captions",
        summary="List what has been captioned",
        description="The newest first, and what was rejected with its reason.",
        operation_id="list",
        tags=["photos"],
        responses=responses(200, {"description": "A page of photos."}, 400, 422),
    )
    def list_(
        limit: Annotated[int, Query(description="How many at most.", ge=1, le=100)] = 24,
        cursor: Annotated[str | None, Query(description="What the page before came with.", max_length=4000)] = None,
    ) -> Page:
        now = datetime.now(UTC)
        before = read_cursor(cursor) if cursor is not None else None

        def keep(record: Record) -> bool:
            lives = record.expires_at is None or record.expires_at > now.timestamp()
            return lives and record.image.startswith(f"{site.bucket}/{site.prefix}")

        records, place = newest(service.records, keep, limit, before, now)
        return Page(items=[item_of(record) for record in records], cursor=write_cursor(place) if place else None)

    @app.get(
        "/captions/item",
        summary="What is known of a photo",
        description="404 until its caption is there, seconds after it was uploaded.",
        operation_id="read",
        tags=["photos"],
        responses=responses(200, {"description": "Its record."}, 404, 422),
    )
    def read(key: Key) -> Item:
        return item_of(find(name_of(key), service))

    @app.put(
        "/captions/item",
        summary="Correct a caption",
        description="The person's words go to the record and to the object's metadata, and no model overwrites them.",
        operation_id="correct",
        tags=["photos"],
        responses=responses(200, {"description": "Its record, corrected."}, 400, 404, 409, 415, 422, 503),
    )
    def put(key: Key, correction: Correction) -> Item:
        return item_of(correct(name_of(key), correction.caption, service))

    @app.delete(
        "/captions/item",
        summary="Delete a caption",
        description="The record, and what the object's metadata say. The photo stays, and is not captioned again.",
        operation_id="delete",
        tags=["photos"],
        status_code=204,
        responses=responses(204, {"description": "It is gone.", "content": {}}, 404, 409, 422, 503),
    )
    def delete(key: Key) -> Response[Any]:
        forget(name_of(key), service)
        return Response(204)


def _page_routes(app: APIGatewayHttpResolver, service: Service, site: Site) -> None:
    bucket = origin(service.s3, site.bucket) if site.has_photos else None
    page, docs = pages.page_files(), pages.docs_files()
    policy = pages.page_policy(bucket, site.sign_in)

    @app.get("/", include_in_schema=False, enable_validation=False, compress=True)
    def index() -> Response[Any]:
        return _file(app, page, "index.html", policy)

    @app.get("/page/config.json", include_in_schema=False, enable_validation=False)
    def config() -> Response[Any]:
        known = {
            "auth": site.auth,
            "sign_in": {"url": site.sign_in, "client_id": site.client_id} if site.sign_in else None,
            "photos": site.has_photos,
            "largest_body": LARGEST_BODY,
            "largest_upload": LARGEST,
            "media_types": list(MEDIA_TYPES.values()),
        }
        return Response(200, JSON, json.dumps(known))

    @app.get("/page/<name>", include_in_schema=False, enable_validation=False, compress=True)
    def page_file(name: str) -> Response[Any]:
        return _file(app, page, name, policy)

    @app.get("/docs", include_in_schema=False, enable_validation=False, compress=True)
    def docs_index() -> Response[Any]:
        return _file(app, docs, "index.html", pages.DOCS_POLICY)

    @app.get("/docs/<name>", include_in_schema=False, enable_validation=False, compress=True)
    def docs_file(name: str) -> Response[Any]:
        return _file(app, docs, name, pages.DOCS_POLICY)


def _own_routes(app: APIGatewayHttpResolver, service: Service, site: Site) -> None:
    document = cache(lambda: describe_api(app, site.auth))

    @app.get(
        "/health",
        summary="Whether the API is well",
        operation_id="health",
        tags=["api"],
        security=[],
        responses=responses(200, {"description": "It is, and with this model."}),
    )
    def health() -> Health:
        return Health(status="ok", model=service.captioner.name)

    @app.get("/openapi.json", include_in_schema=False, enable_validation=False, compress=True)
    def openapi() -> Response[Any]:
        return Response(200, JSON, document())


def _file(app: APIGatewayHttpResolver, files: Mapping[str, pages.PageFile], name: str, policy: str) -> Response[Any]:
    """A file, or 304 to a browser that has it."""
    if name not in files:
        return problem(app.current_event.raw_event, HTTPStatus.NOT_FOUND, f"nothing is at {app.current_event.path}")
    file = files[name]
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "ETag": file.etag,
        "Vary": "Accept-Encoding",
    }
    if file.etag in app.current_event.headers.get("if-none-match", ""):
        return Response(304, headers=headers)
    return Response(200, file.media_type, file.content, headers)


def _prefers_text(accept: str) -> bool:
    """Whether the header asks for plain text rather than JSON (RFC 9110, 12.5.1)."""
    found = re.findall(r"([\w*+./-]+)[^,]*?(?:;\s*q=([\d.]+))?\s*(?:,|$)", accept.lower())
    quality = {media_type: float(q or 1) for media_type, q in found}
    return quality.get(TEXT, 0) > quality.get(JSON, 0)
