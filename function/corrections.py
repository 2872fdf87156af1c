"""What a person says of a photo's caption: another one, or none at all.

Both are said in the record first, on condition of its revision; then the object is settled, as after any event, which
brings its metadata in line. So what is cut off between the two is finished by the next event.
"""

from __future__ import annotations

from datetime import UTC, datetime

from function.events import ObjectName
from function.objects import Service, settle, until_undisturbed
from function.records import Record, corrected, forgotten


class NoRecord(Exception):
    """There is no record of this photo."""


class NoCaption(Exception):
    """The photo has no caption that could be corrected, or was replaced by another; the message says which."""


def find(name: ObjectName, service: Service) -> Record:
    """The record of a photo that is captioned or rejected. Raises NoRecord."""
    record = service.records.read(f"{name.bucket}/{name.key}")
    if record is None or record.status == "deleted":
        raise NoRecord(f"no record of {name.key}")
    return record


def correct(name: ObjectName, caption: str, service: Service) -> Record:
    """Puts a person's caption in the place of the one there.

    Raises NoRecord, NoCaption, Overtaken, ObjectUnavailable.
    """

    def write() -> Record:
        known = find(name, service)
        if known.status == "rejected":
            raise NoCaption(f"{name.key} is rejected: {known.reason}")
        return service.records.write(corrected(known, caption), known)

    written = until_undisturbed(write)
    if service.announce:
        service.announce(written)
    settled = settle(name, service)
    if (settled.caption_by, settled.sha256) != ("person", written.sha256):
        raise NoCaption(f"{name.key} was replaced or removed meanwhile")
    return settled


def forget(name: ObjectName, service: Service) -> None:
    """Deletes the record and what the object's metadata say; the photo stays, and so it stays until its bytes change.

    Raises NoRecord, Overtaken, ObjectUnavailable.
    """

    def write() -> Record:
        known = find(name, service)
        return service.records.write(forgotten(known, datetime.now(UTC), service.life), known)

    until_undisturbed(write)
    settle(name, service)
