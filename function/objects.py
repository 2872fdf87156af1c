"""From a key to its record and its metadata: events are hints, the bucket is the truth.

Read the record, read the object that is there now, caption it, write the record only if its revision is still
what was read, then the metadata only if the object is still what was read; else begin again. So duplicates,
late events, overwrites and removals in any order all end with the caption of the bytes that are there.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from botocore.exceptions import ClientError

from function import metadata
from function.captioner import Captioner, as_json
from function.events import ObjectName
from function.photos import Photo, UnreadablePhoto, read_photo
from function.records import Overtaken, Record, Records, stamp, tombstone

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WriteBack = Literal["metadata", "annotation", "none"]
Measure = Callable[[str, float], None]  # takes the name of a metric, and a value

LARGEST = 50_000_000  # bytes; what is larger is not read, and is no photo
ATTEMPTS = 5
BUSY = (408, 409, 429)  # HTTP's 4xx that ask to try again

T = TypeVar("T")

log = logging.getLogger(__name__)


class ObjectUnavailable(Exception):
    """The object cannot be had: no permission, no such bucket. The message names it and says why.

    With `refused`, S3 has said so (4xx) and will say so again; else it has failed, and may do better next time.
    """

    def __init__(self, message: str, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


def nobody(*_: object) -> None:
    """Who is told where nobody wants to know."""


@dataclass(frozen=True)
class Service:
    """What answers with: made once, and passed in."""

    s3: S3Client
    records: Records
    captioner: Captioner
    write_back: WriteBack  # where on the object the caption goes too
    life: timedelta | None = None  # of a record; None: for ever
    announce: Callable[[Record], None] | None = None  # tells others of a new caption or rejection; raises nothing
    count: Callable[[Record], None] = nobody  # is told of each record that says something new
    measure: Measure = nobody
    one_photo: Lock = field(default_factory=Lock)  # is in memory at a time, its bytes and all its pixels


@dataclass(frozen=True)
class Found:
    """The object that is there now."""

    head: Mapping[str, Any]  # GetObject's answer
    unreadable: str | None = None  # why S3 does not give its bytes

    @property
    def place(self) -> dict[str, Any]:
        """Which object this is, as the record says it."""
        etag = self.head.get("ETag", "").strip('"')
        return {"etag": etag or None, "version_id": self.head.get("VersionId")}


def describe(
    data: bytes, captioner: Captioner, beams: int | None = None, explain: bool = False, measure: Measure = nobody
) -> dict[str, Any]:
    """The fields of a record that follow from the bytes alone: captions, or a rejection and its reason.

    With `explain` also `attention`, {"word", "weights": rows of a grid} for each word of the best caption. Raises
    BundleError where the model cannot tell.
    """
    photo, fields = _look(data, captioner, measure)
    return _describe(photo, fields, captioner, measure, beams, explain) if photo else fields


def _look(data: bytes, captioner: Captioner, measure: Measure) -> tuple[Photo | None, dict[str, Any]]:
    """The photo, and what its bytes say by themselves: all there is to say if it is none."""
    fields: dict[str, Any] = {"sha256": _sha256(data), "bytes": len(data)}
    try:
        with _timed(measure, "Decode"):
            return read_photo(data, captioner.image_size), fields
    except UnreadablePhoto as error:
        return None, fields | {"status": "rejected", "reason": str(error)}


def _describe(
    photo: Photo,
    fields: dict[str, Any],
    captioner: Captioner,
    measure: Measure,
    beams: int | None = None,
    explain: bool = False,
) -> dict[str, Any]:
    """Those fields, and what the captioner says."""
    with _timed(measure, "Inference"):
        captions = captioner.caption(photo.pixels[None], beams)[0]
    if explain:
        tokens = captions[0].tokens
        grids = captioner.attention(photo.pixels, tokens).astype(float).round(4).tolist()
        looks = zip(captioner.words(tokens), grids, strict=True)
        fields["attention"] = [{"word": word, "weights": grid} for word, grid in looks]
    said = as_json(captions)
    return fields | {
        "status": "captioned",
        **said,
        "captions": tuple(said["captions"]),
        "caption_by": "model",
        "model": captioner.name,
        "width": photo.width,
        "height": photo.height,
        "format": photo.format,
    }


def settle(name: ObjectName, service: Service) -> Record:
    """Makes the record and the metadata of an object true, and returns the record.

    The same bytes and model cost no inference, only what was left unfinished. Raises ObjectUnavailable, and
    Overtaken where others kept writing through all attempts.
    """
    return until_undisturbed(lambda: _settle_once(name, service))


def until_undisturbed(act: Callable[[], T]) -> T:
    """What `act` returns, begun again where somebody else was faster. Raises Overtaken after ATTEMPTS."""
    for _ in range(ATTEMPTS - 1):
        try:
            return act()
        except Overtaken as error:
            log.info("%s: beginning again", error)
    return act()


def _settle_once(name: ObjectName, service: Service) -> Record:
    image = f"{name.bucket}/{name.key}"
    known = service.records.read(image)
    found = _find(name, service.s3)
    if found is None:
        if known and known.status == "deleted" and known.caption_by is None:
            return known
        gone = service.records.write(tombstone(image, _now()), known)
        service.count(gone)
        return gone

    record = _record(image, known, found, service)
    if "Body" in found.head:
        found.head["Body"].close()  # unread where the record holds
    wanted = None
    if record.status != "rejected":
        wanted, reason = _wanted(record, found) if service.write_back == "metadata" else (None, None)
        record = replace(record, reason=reason)
    if record != known:
        with _timed(service.measure, "Record"):
            record = service.records.write(record, known)
        if known is None or _said(record) != _said(known):
            service.count(record)
            if service.announce:
                service.announce(record)
    if record.status != "rejected" and service.write_back == "annotation":
        _annotate(name, service, found, record)
    if wanted is None or metadata.says(found.head, wanted):
        return record
    return _write_back(name, service, found, record, wanted)


def _find(name: ObjectName, s3: S3Client) -> Found | None:
    """The object at this key, its body still unread; None where there is none."""
    try:
        return Found(s3.get_object(Bucket=name.bucket, Key=name.key))
    except ClientError as error:
        match error.response["Error"]["Code"]:
            case "NoSuchKey":
                return None
            case "InvalidObjectState":
                head = s3.head_object(Bucket=name.bucket, Key=name.key)
                return Found(head, f"archived ({head.get('StorageClass')}): restore it, then ask again")
            case "InvalidRequest":
                return Found({}, "encrypted with a customer's key (SSE-C)")
        raise _unavailable(error, name, "read") from error


def _record(image: str, known: Record | None, found: Found, service: Service) -> Record:
    """The record of what is there now: the known one as far as it holds, else one made from the bytes."""
    valid = _standing(known, service.captioner)
    if valid and valid.etag == found.place["etag"]:
        return replace(valid, **found.place)
    size = found.head.get("ContentLength", 0)
    fields: dict[str, Any]
    if found.unreadable:
        fields = {"status": "rejected", "reason": found.unreadable}
    elif size > LARGEST:
        fields = {"status": "rejected", "reason": f"too large for a photo: {size:,} bytes", "bytes": size}
    else:
        with service.one_photo:
            with _timed(service.measure, "Read"):
                data = found.head["Body"].read()
            if valid and valid.sha256 == _sha256(data):
                return replace(valid, **found.place)
            photo, fields = _look(data, service.captioner, service.measure)
            del data
        if photo:
            fields = _describe(photo, fields, service.captioner, service.measure)
    record = stamp(Record(image=image, **fields, **found.place), _now(), service.life)
    if known and _unstamped(record) == _unstamped(known):
        return known
    return record


def _standing(known: Record | None, captioner: Captioner) -> Record | None:
    """The known record, if it is what a person, or this model, says of its bytes; a person may have deleted it."""
    if known is None:
        return None
    by_model = known.status == "captioned" and known.model == captioner.name
    return known if known.caption_by == "person" or by_model else None


def _wanted(record: Record, found: Found) -> tuple[dict[str, str] | None, str | None]:
    """What the object's metadata should say, or why it is left alone."""
    try:
        if record.status == "deleted":
            return metadata.no_labels(found.head), None
        return metadata.labels(found.head, record.caption or "", _author(record), record.sha256 or ""), None
    except metadata.NotRewritable as error:
        return None, str(error)


def _annotate(name: ObjectName, service: Service, found: Found, record: Record) -> None:
    wanted = {"caption": record.caption or "", "model": _author(record), "source": record.sha256 or ""}
    try:
        if record.status == "deleted":
            return metadata.remove_annotation(service.s3, name.bucket, name.key)
        metadata.annotate(service.s3, name.bucket, name.key, found.head, wanted)
    except metadata.Replaced as error:
        log.info("%s", error)
    except ClientError as error:
        raise _unavailable(error, name, "annotate") from error


def _author(record: Record) -> str:
    return "person" if record.caption_by == "person" else record.model or ""


def _write_back(name: ObjectName, service: Service, found: Found, record: Record, wanted: dict[str, str]) -> Record:
    try:
        with _timed(service.measure, "Write"):
            etag, version_id = metadata.write(service.s3, name.bucket, name.key, found.head, wanted)
    except metadata.Replaced as error:
        log.info("%s", error)
        return record
    except ClientError as error:
        raise _unavailable(error, name, "write") from error
    if (etag, version_id) == (record.etag, record.version_id):
        return record
    return service.records.write(replace(record, etag=etag, version_id=version_id), record)


@contextmanager
def _timed(measure: Measure, stage: str) -> Iterator[None]:
    """Measures how long a stage takes, if it succeeds."""
    began = time.perf_counter()
    yield
    measure(f"{stage}Milliseconds", (time.perf_counter() - began) * 1000)


def _unavailable(error: ClientError, name: ObjectName, doing: str) -> ObjectUnavailable:
    why = error.response["Error"]
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    message = f"cannot {doing} {name}: {why.get('Code')}: {why.get('Message')}"
    return ObjectUnavailable(message, refused=400 <= status < 500 and status not in BUSY)


def _unstamped(record: Record) -> Record:
    return replace(record, revision=0, captioned_at=None, day=None, expires_at=None)


def _said(record: Record) -> Record:
    """What is news of a record: not which copy of the same bytes it is about."""
    return replace(_unstamped(record), etag=None, version_id=None)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC)
