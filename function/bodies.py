"""The photo in the body of an HTTP request: the body itself, or a file in a form (multipart/form-data, RFC 7578)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any

LARGEST_BODY = 4_000_000  # bytes: in base64, and with its headers, Lambda's payload of 6 MB
# What arrives whole: API Gateway passes these on in base64, and text as text. The last is what curl says by itself.
RAW = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")


class TooLarge(Exception):
    """The body is larger than LARGEST_BODY."""


class UnknownMediaType(Exception):
    """The body is said to be something else than a photo."""


class NoPhoto(Exception):
    """There is no photo in the form."""


def read_body(event: Mapping[str, Any]) -> bytes:
    """The photo that API Gateway hands over. Raises TooLarge, UnknownMediaType, NoPhoto."""
    body: str = event.get("body") or ""
    encoded = event.get("isBase64Encoded", False)
    size = len(body) * 3 // 4 - body[-2:].count("=") if encoded else len(body)
    if size > LARGEST_BODY:
        raise TooLarge(f"a body of at most {LARGEST_BODY:,} bytes is taken here; larger photos go by POST /uploads")
    kind = Message()
    kind["content-type"] = event["headers"].get("content-type") or RAW[1]
    media_type = kind.get_content_type()
    if media_type != "multipart/form-data" and not media_type.startswith(RAW):
        raise UnknownMediaType(f"{media_type}: an image is taken here, or a form (multipart/form-data) with one in it")
    data = base64.b64decode(body) if encoded else body.encode("utf-8", "surrogatepass")
    return _file(data, kind.get_boundary("")) if media_type == "multipart/form-data" else data


def _file(form: bytes, boundary: str) -> bytes:
    """The one file in a form. Raises NoPhoto."""
    if not boundary:
        raise NoPhoto("the form's content type names no boundary")
    _, *parts = (b"\r\n" + form).split(b"\r\n--" + boundary.encode("utf-8", "surrogateescape"))
    if not parts or not parts.pop().startswith(b"--"):
        raise NoPhoto("the form has no end")
    files = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        if BytesHeaderParser().parsebytes(head.lstrip()).get_filename() is not None:
            files.append(content)
    if len(files) != 1:
        raise NoPhoto(f"the form has {len(files)} files, expected one")
    return files[0]
