"""How the API describes itself: OpenAPI 3.1, from its routes and their models."""

from __future__ import annotations

import json
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

from function.bodies import LARGEST_BODY
from function.photos import READABLE
from function.problems import MEDIA_TYPE
from function.schemas import Problem

TITLE = "Captions"
DESCRIPTION = f"""\
Captions for photos: of one that is sent here, and of those in the bucket.

A photo is a {READABLE}. One of at most {LARGEST_BODY:,} bytes can be sent to `POST /captions`; a larger one goes
straight to the bucket with what `POST /uploads` answers, and its caption is at `GET /captions/item` seconds later.

Whatever goes wrong is a problem document (RFC 9457). Callers who may not call, or who call too often, are refused
before this API sees them, with status 401, 403 or 429 and a `message`.
"""
REFERENCE = "#/components/schemas/{model}"
ERRORS = {
    400: "The request cannot be understood.",
    404: "There is no record of this photo.",
    409: "The photo has no caption to correct, or somebody else has just changed it.",
    413: f"The body is larger than {LARGEST_BODY:,} bytes.",
    415: "The body is of another type.",
    422: "What was sent is not what is taken here; `detail` says why.",
    503: "The bucket does not let the photo be read or written.",
}
SECURITY = {
    "AWS_IAM": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "Signed with AWS credentials (Signature Version 4, service `execute-api`).",
        "x-amazon-apigateway-authtype": "awsSigv4",
    },
    "COGNITO": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token of the user pool."},
    "JWT": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token of the issuer."},
}
PHOTO_BODY = {
    "requestBody": {
        "required": True,
        "description": f"The photo, of at most {LARGEST_BODY:,} bytes: as it is, or as the one file of a form.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["photo"],
                    "properties": {"photo": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


def responses(status: int, said: dict[str, Any], *errors: int) -> dict[int, Any]:
    """What a route answers: `said` with `status`, and problems with these."""
    schema = {"schema": {"$ref": REFERENCE.format(model="Problem")}}
    problems = {each: {"description": ERRORS[each], "content": {MEDIA_TYPE: schema}} for each in errors}
    return {status: said, **problems}


def describe_api(app: APIGatewayHttpResolver, auth: str) -> str:
    """The document, as JSON."""
    document = json.loads(app.get_openapi_json_schema(title=TITLE, version="1", description=DESCRIPTION))
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError", "ResponseValidationError"):
        schemas.pop(unused, None)
    problem = Problem.model_json_schema(mode="serialization", ref_template=REFERENCE)
    schemas |= problem.pop("$defs", {}) | {"Problem": problem}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"] = {
                status: response
                for status, response in operation["responses"].items()
                if "HTTPValidationError" not in json.dumps(response)  # Powertools' own, in the place of a problem
            }
    if auth in SECURITY:
        document["components"]["securitySchemes"] = {auth: SECURITY[auth]}
        document["security"] = [{auth: []}]
    return json.dumps(document)
