"""The photos with a record, newest first, page by page.

The index `by_day` has a partition for each of eight shards of a day. A page merges the shards of a day, and goes back
day by day until it is full. The order is by `captioned_at`, then by image, both falling; a place in it is what a
cursor says, so that photos that come or go between two pages move nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial

from function.records import SHARDS, Record, Records

BEGINNING = date(2026, 11, 1)  # no record is older than this code
DAYS = 31  # that a page looks through at most


class BadCursor(ValueError):
    """Not a cursor that a page came with."""


@dataclass(frozen=True, order=True)
class Place:
    """In the order of all records. What is above it has been shown."""

    captioned_at: str  # ISO 8601, UTC
    image: str = ""


def newest(
    records: Records, keep: Callable[[Record], bool], limit: int, before: Place | None, now: datetime
) -> tuple[list[Record], Place | None]:
    """At most `limit` records to `keep`, those below `before`, and the place that the next page begins below.

    A page may be short, or empty, and yet not the last: that one comes with no place.
    """
    before = before or Place(now.isoformat())
    day = min(date.fromisoformat(before.captioned_at[:10]), now.date())
    last = max(BEGINNING, day - timedelta(DAYS - 1))
    found: list[Record] = []
    with ThreadPoolExecutor(SHARDS) as pool:
        while day >= last:
            first = partial(_first, records, keep, limit - len(found), before, day)
            shards = pool.map(first, range(SHARDS))
            found += sorted((record for shard in shards for record in shard), key=_place, reverse=True)
            if len(found) >= limit:
                return found[:limit], _place(found[limit - 1])
            day -= timedelta(1)
    return found, Place(f"{last}T00:00:00.000Z") if last > BEGINNING else None


def write_cursor(place: Place) -> str:
    """The place as text that goes into a URL as it is."""
    text = json.dumps([place.captioned_at, place.image])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Place:
    """The place that `write_cursor` wrote. Raises BadCursor."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        match json.loads(text):
            case [str(captioned_at), str(image)]:
                datetime.fromisoformat(captioned_at)
                return Place(captioned_at, image)
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise BadCursor("cursor: not one that a page came with")


def _first(
    records: Records, keep: Callable[[Record], bool], limit: int, before: Place, day: date, shard: int
) -> list[Record]:
    """The first `limit` of a shard, and all that were made at the same moment as the last of them."""
    first: list[Record] = []
    for record in records.newest(day, shard, before.captioned_at, limit + 1):
        if len(first) >= limit and record.captioned_at != first[-1].captioned_at:
            break
        if _place(record) < before and keep(record):
            first.append(record)
    return first


def _place(record: Record) -> Place:
    return Place(record.captioned_at or "", record.image)
