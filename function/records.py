"""Records: what is known of each photo, one item of a DynamoDB table a photo.

The invariant: a record is replaced only by somebody who has read it. `revision` counts up with each write,
and a write holds only if the revision in the table is still the one that was read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Status = Literal["captioned", "rejected", "deleted"]

SHARDS = 8  # of a day in the index `by_day`: a sweep must not make one hot partition
TOMBSTONE_LIFE = timedelta(days=30)


class Overtaken(Exception):
    """The record or the object has changed since it was read: begin again."""


@dataclass(frozen=True)
class Record:
    """A photo's record. Fields that do not apply are None, and are not stored."""

    image: str  # bucket/key
    status: Status
    revision: int = 0  # 0: not yet written
    caption: str | None = None
    captions: tuple[Mapping[str, Any], ...] = ()  # {"text", "log_probability", "confidence"}, best first
    confidence: float | None = None  # of `caption`, 0 to 1; a person's has none
    caption_by: Literal["model", "person"] | None = None  # deleted: "person" if one did, not the photo's removal
    model: str | None = None
    sha256: str | None = None  # of the bytes, hexadecimal
    etag: str | None = None  # without its quotes
    version_id: str | None = None
    width: int | None = None  # of the upright photo, pixels
    height: int | None = None
    format: str | None = None
    bytes: int | None = None
    captioned_at: str | None = None  # ISO 8601, UTC
    reason: str | None = None  # rejected: why, in few kinds before a colon; captioned: why the object was left alone
    day: str | None = None  # partition of the index `by_day`: date#shard
    expires_at: int | None = None  # seconds since 1970


def stamp(record: Record, now: datetime, life: timedelta | None = None) -> Record:
    """The record with the time it was made, and so its place in the index `by_day`, and its end if it has one."""
    utc = now.astimezone(UTC)
    return replace(
        record,
        captioned_at=utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        day=f"{utc.date()}#{crc32(record.image.encode()) % SHARDS}",
        expires_at=int((now + life).timestamp()) if life else None,
    )


def corrected(record: Record, caption: str) -> Record:
    """The record with a person's caption; what the model considered, and its place in the index, stay."""
    return replace(record, caption=caption, confidence=None, caption_by="person")


def forgotten(record: Record, now: datetime, life: timedelta | None = None) -> Record:
    """The record of a photo that is there and that a person wants none of: only which bytes that is true of."""
    return Record(
        image=record.image,
        status="deleted",
        caption_by="person",
        sha256=record.sha256,
        etag=record.etag,
        version_id=record.version_id,
        expires_at=int((now + life).timestamp()) if life else None,
    )


def tombstone(image: str, now: datetime) -> Record:
    """The record of a photo that is gone: nothing of it is kept, and DynamoDB forgets it after 30 days."""
    return Record(image=image, status="deleted", expires_at=int((now + TOMBSTONE_LIFE).timestamp()))


def as_json(record: Record) -> dict[str, Any]:
    """The fields that apply, ready for JSON."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(record).items()
        if value not in (None, ())
    }


@dataclass(frozen=True)
class Records:
    """The table of records."""

    dynamodb: DynamoDBClient
    table: str

    def read(self, image: str) -> Record | None:
        """The record of `bucket/key` as it is now (a consistent read), or None."""
        key = {"image": {"S": image}}
        answer = self.dynamodb.get_item(TableName=self.table, Key=key, ConsistentRead=True)
        return _from_item(answer["Item"]) if "Item" in answer else None

    def newest(self, day: date, shard: int, before: str, some: int) -> Iterator[Record]:
        """The records of a shard of a day that were made at `before` or earlier, newest first, `some` a request."""
        pages = self.dynamodb.get_paginator("query").paginate(
            TableName=self.table,
            IndexName="by_day",
            KeyConditionExpression="#day = :day AND captioned_at <= :before",
            ExpressionAttributeNames={"#day": "day"},
            ExpressionAttributeValues={":day": {"S": f"{day}#{shard}"}, ":before": {"S": before}},
            ScanIndexForward=False,
            PaginationConfig={"PageSize": some},
        )
        return (_from_item(item) for page in pages for item in page["Items"])

    def write(self, record: Record, known: Record | None) -> Record:
        """Puts `record` in the place of `known`, which was read before; None where there was no record.

        Returns the record with its new revision. Raises Overtaken if somebody else has written meanwhile.
        """
        written = replace(record, revision=known.revision + 1 if known else 1)
        condition: dict[str, Any] = (
            {
                "ConditionExpression": "revision = :known",
                "ExpressionAttributeValues": {":known": {"N": str(known.revision)}},
            }
            if known
            else {"ConditionExpression": "attribute_not_exists(image)"}
        )
        try:
            self.dynamodb.put_item(TableName=self.table, Item=_to_item(written), **condition)
        except self.dynamodb.exceptions.ConditionalCheckFailedException as error:
            raise Overtaken(f"{record.image}: its record was written by somebody else") from error
        return written


def _to_item(record: Record) -> dict[str, Any]:
    fields = as_json(record)
    serialize = TypeSerializer().serialize
    return {name: serialize(_decimal(value)) for name, value in fields.items()}


def _decimal(value: Any) -> Any:
    """DynamoDB's numbers are decimal: so become the floats in lists and mappings too."""
    if isinstance(value, list):
        return [_decimal(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _decimal(item) for name, item in value.items()}
    return Decimal(str(value)) if isinstance(value, float) else value


def _from_item(item: Mapping[str, Any]) -> Record:
    deserialize = TypeDeserializer().deserialize
    fields = {name: deserialize(value) for name, value in item.items()}
    for name in ("revision", "width", "height", "bytes", "expires_at"):
        if name in fields:
            fields[name] = int(fields[name])
    if "confidence" in fields:
        fields["confidence"] = float(fields["confidence"])
    fields["captions"] = tuple(
        {name: float(value) if isinstance(value, Decimal) else value for name, value in caption.items()}
        for caption in fields.get("captions", ())
    )
    return Record(**fields)
