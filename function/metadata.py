"""The caption on the object itself: in its metadata, by a copy onto itself that keeps everything else, or in an
annotation, which is attached without a copy, where S3 has them.

The invariant: an object that already says what would be written is not copied. A copy is an `ObjectCreated`
event, which comes back to this function; that is what ends the matter there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.errors import HeaderParseError
from email.header import Header, decode_header, make_header
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from function.records import Overtaken

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LIMIT = 2048  # bytes of names and values that S3 allows a user's metadata
ANNOTATION = "caption"  # its name
OURS = ("caption", "caption-model", "caption-source")

# What a copy with new metadata would lose; GetObject returns and CopyObject takes them by the same names.
# The checksum's algorithm and annotations follow of themselves.
KEPT = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
    "WebsiteRedirectLocation",
    "StorageClass",
    "ServerSideEncryption",
    "SSEKMSKeyId",
    "BucketKeyEnabled",
)


class NotRewritable(Exception):
    """This object is left as it is; the message says why."""


class Replaced(Exception):
    """The object was replaced or removed since it was read: its own event tells of that."""


def labels(head: Mapping[str, Any], caption: str, model: str, sha256: str) -> dict[str, str]:
    """What an object's metadata should say of its caption. Raises NotRewritable.

    `head` is GetObject's answer, `sha256` the digest of the bytes. Where the object's own metadata leave too
    little of S3's 2 KB, the caption loses words from its end; what a user wrote is never touched.
    """
    if reason := _obstacle(head):
        raise NotRewritable(reason)
    fixed = {"caption-model": _ascii(model), "caption-source": sha256}
    words = caption.split() or [""]
    while words:
        wanted = {"caption": _ascii(" ".join(words)), **fixed}
        if _size(_others(head) | wanted) <= LIMIT:
            return wanted
        words.pop()
    raise NotRewritable("its own metadata leave no room for a caption in S3's 2 KB")


def no_labels(head: Mapping[str, Any]) -> dict[str, str]:
    """What the metadata should say of a photo whose record a person deleted. Raises NotRewritable."""
    if not says(head, {}) and (reason := _obstacle(head)):
        raise NotRewritable(reason)
    return {}


def says(head: Mapping[str, Any], wanted: dict[str, str]) -> bool:
    """Whether the object carries these labels and no others of ours. S3 may encode them anew: text is compared."""
    held = {name: _text(value) for name, value in head["Metadata"].items() if name in OURS}
    return held == {name: _text(value) for name, value in wanted.items()}


def write(
    s3: S3Client, bucket: str, key: str, head: Mapping[str, Any], wanted: dict[str, str]
) -> tuple[str, str | None]:
    """Copies the object that `head` tells of onto itself with the labels; the copy's ETag and version.

    Raises Replaced where it is no longer that object, Overtaken where S3 was in the middle of another write
    (409).
    """
    with _conditions(bucket, key):
        copy = s3.copy_object(
            Bucket=bucket,
            Key=key,
            CopySource={"Bucket": bucket, "Key": key},
            CopySourceIfMatch=head["ETag"],
            IfMatch=head["ETag"],
            MetadataDirective="REPLACE",
            Metadata=_others(head) | wanted,
            TaggingDirective="COPY",
            **{name: head[name] for name in KEPT if name in head},
        )
    return copy["CopyObjectResult"]["ETag"].strip('"'), copy.get("VersionId")


def annotate(s3: S3Client, bucket: str, key: str, head: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    """Attaches `wanted` to the object that `head` tells of, as JSON in its annotation `caption`, unless it is there.

    Raises Replaced and Overtaken as `write` does.
    """
    payload = json.dumps(wanted, ensure_ascii=False).encode()
    name: dict[str, Any] = {"Bucket": bucket, "Key": key, "AnnotationName": ANNOTATION}
    try:
        if s3.get_object_annotation(**name)["AnnotationPayload"].read() == payload:
            return
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    with _conditions(bucket, key):
        s3.put_object_annotation(**name, AnnotationPayload=payload, ObjectIfMatch=head["ETag"])


def remove_annotation(s3: S3Client, bucket: str, key: str) -> None:
    """Takes the annotation `caption` off the object, if it has one."""
    try:
        s3.delete_object_annotation(Bucket=bucket, Key=key, AnnotationName=ANNOTATION)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise


@contextmanager
def _conditions(bucket: str, key: str) -> Iterator[None]:
    """What S3 answers where the object is no longer the one that was read."""
    try:
        yield
    except ClientError as error:
        match error.response["ResponseMetadata"]["HTTPStatusCode"]:
            case 404 | 412:
                raise Replaced(f"s3://{bucket}/{key} was replaced or removed meanwhile") from error
            case 409:
                raise Overtaken(f"s3://{bucket}/{key} is being written by somebody else") from error
        raise


def _obstacle(head: Mapping[str, Any]) -> str | None:
    """Why a copy could not keep everything. (Objects over 5 GB or with a customer's key were never read.)"""
    storage = head.get("StorageClass", "STANDARD")
    if storage in ("GLACIER", "DEEP_ARCHIVE"):
        return f"not written to the object: it is archived ({storage})"
    holds = (head.get("ObjectLockLegalHoldStatus"), head.get("ObjectLockEventHold"))
    if "ObjectLockMode" in head or "ON" in holds:
        return "not written to the object: it is locked (Object Lock)"
    if head.get("MissingMeta"):
        return "not written to the object: some of its metadata cannot be read, and would be lost"
    if "ExpiresString" in head and "Expires" not in head:
        return "not written to the object: its Expires header is no date, and would be lost"
    return None


def _others(head: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in head["Metadata"].items() if name not in OURS}


def _size(metadata: Mapping[str, str]) -> int:
    """Bytes, counted with each header's prefix, so never fewer than S3 counts."""
    return sum(len(f"x-amz-meta-{name}{value}".encode()) for name, value in metadata.items())


def _ascii(text: str) -> str:
    """The text as S3's metadata takes it: US-ASCII, or else RFC 2047's encoded words in UTF-8."""
    if text.isascii() and text.isprintable() and "=?" not in text:
        return text
    return Header(text, "utf-8").encode(linesep="")


def _text(value: str) -> str:
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, UnicodeError):
        return value
