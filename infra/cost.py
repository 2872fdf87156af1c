"""`python -m infra.cost`: what it costs a month, computed from list prices and stated assumptions, as Markdown.

RUNBOOK.md holds what this prints, and a test compares the two.
"""

from dataclasses import dataclass

# US dollars, US East (N. Virginia), list prices as known in November 2026, without any free tier. What holds are the
# pages of Amazon: aws.amazon.com/{lambda,s3,sqs,dynamodb,cloudwatch,xray,eventbridge,api-gateway,ecr}/pricing.
MILLION = 1_000_000
LAMBDA_GB_SECOND = {"x86_64": 0.0000166667, "arm64": 0.0000133334}
LAMBDA_REQUEST = 0.20 / MILLION
S3_COPY = 5.00 / MILLION
S3_GET = 0.40 / MILLION
SQS_REQUEST = 0.40 / MILLION
DYNAMODB_WRITE_UNIT = 0.625 / MILLION
DYNAMODB_READ_UNIT = 0.125 / MILLION
DYNAMODB_GB = 0.25
DYNAMODB_BACKUP_GB = 0.20
LOGS_GB = 0.50
XRAY_TRACE = 5.00 / MILLION
METRIC, ALARM, DASHBOARD = 0.30, 0.10, 3.00
ECR_GB = 0.10
EVENTBRIDGE_EVENT = 1.00 / MILLION
HTTP_API_REQUEST = 1.00 / MILLION
MANAGED_CAPTION = 0.0015  # an image: Azure AI Vision's list price (S1) of a caption, up to a million a month
BATCH_JOB, BATCH_OBJECT = 0.25, (1.00 + 0.015) / MILLION  # with the list that S3 makes of the bucket itself

# Assumptions, as `assumptions` words them; none of the times was measured on Lambda yet.
MEMORY_MB = 1769
CAPTION_MS = 250  # read, decode, infer, write the record, copy
SEEN_MS = 40  # the copy's own event: read, and see that nothing is to do
START_MS = 3000  # a cold start, billed since 2025
RECORD_KB = 1.2
RECORD_WRITE = 4 * DYNAMODB_WRITE_UNIT  # two units of 1 KB each, in the table and in its index
LOG_KB = 3
EVENT_LOG = LOG_KB / MILLION * LOGS_GB
IMAGE_GB = 0.3
METRICS, ALARMS = 10 + 1 + 3, 6  # metrics: those of the dashboard, one model, three kinds of reasons
POLLERS, POLL_SECONDS = 5, 20  # Lambda asks the queue even where it is empty
MONTH = 30 * 24 * 3600  # seconds


@dataclass(frozen=True)
class Traffic:
    """A month's photos, and what follows from how densely they come."""

    photos: int
    events_a_call: float  # messages that a call of the function is handed at once
    cold: float  # share of calls that meet no warm function


TRAFFIC = (
    Traffic(1_000, events_a_call=1, cold=0.5),
    Traffic(1 * MILLION, events_a_call=1.5, cold=0.01),
    Traffic(100 * MILLION, events_a_call=4, cold=0.001),
)


def monthly(traffic: Traffic, architecture: str = "x86_64") -> dict[str, float]:
    """US dollars a month for each part, with write-back to metadata in a new bucket that is not versioned."""
    photos = traffic.photos
    events = 2 * photos  # the upload's, and that of the copy that carries the caption
    calls = events / traffic.events_a_call
    milliseconds = photos * (CAPTION_MS + SEEN_MS) + calls * traffic.cold * START_MS
    polls = POLLERS * MONTH / POLL_SECONDS
    traces = min(calls, MONTH) + 0.05 * max(0, calls - MONTH)  # one a second, and 5 % of the rest
    gigabytes = photos * RECORD_KB / MILLION
    return {
        "Lambda": calls * LAMBDA_REQUEST + _compute(milliseconds, architecture),
        "S3: a copy and two reads a photo": photos * (S3_COPY + 2 * S3_GET),
        "SQS": (events + 2 * calls + polls) * SQS_REQUEST,
        "DynamoDB: requests": photos * (RECORD_WRITE + 2 * DYNAMODB_READ_UNIT),
        "DynamoDB: this month's records, kept and backed up": gigabytes * (2 * DYNAMODB_GB + DYNAMODB_BACKUP_GB),
        "Logs": events * EVENT_LOG,
        "Traces": traces * XRAY_TRACE,
        "Metrics, alarms, dashboard, image": METRICS * METRIC + ALARMS * ALARM + DASHBOARD + IMAGE_GB * ECR_GB,
    }


def extras() -> dict[str, float]:
    """US dollars a million photos, objects or requests, for what not everybody uses."""
    look = LAMBDA_REQUEST + S3_GET + DYNAMODB_READ_UNIT + EVENT_LOG
    seen = look + _compute(SEEN_MS)
    captioned = look + _compute(CAPTION_MS) + RECORD_WRITE
    request = HTTP_API_REQUEST + LAMBDA_REQUEST + _compute(CAPTION_MS) + EVENT_LOG
    return {
        "more, with an existing bucket: its events by EventBridge": MILLION * EVENTBRIDGE_EVENT,
        "more, with an EventBus: an event for each photo": MILLION * EVENTBRIDGE_EVENT,
        "less, with WriteBack none: no copy, and no event of it": -MILLION * (S3_COPY + seen + 3 * SQS_REQUEST),
        "requests to the API that caption a photo": MILLION * request,
        "a sweep where nothing has a caption, without write-back": MILLION * (BATCH_OBJECT + captioned) + BATCH_JOB,
        "a sweep where all captions are current": MILLION * (BATCH_OBJECT + seen) + BATCH_JOB,
    }


def photo_cost(memory: int, milliseconds: float, photos_a_call: int = 1, architecture: str = "x86_64") -> float:
    """US dollars that Lambda takes for a photo: `milliseconds` of the function's time at `memory` MB, and its request.

    What it waits for S3 and DynamoDB comes on top, as does what they take themselves: see `monthly`.
    Raises ValueError for fewer than one photo a call.
    """
    if photos_a_call < 1:
        raise ValueError(f"{photos_a_call} photos a call, expected at least 1")
    return _compute(milliseconds, architecture, memory) + LAMBDA_REQUEST / photos_a_call


def busy(traffic: Traffic) -> float:
    """How many calls run at a time, on average."""
    return traffic.photos * (CAPTION_MS + SEEN_MS) / 1000 / MONTH


def report() -> str:
    """All of it, as Markdown."""
    bills = [monthly(traffic) for traffic in TRAFFIC]
    arm = [sum(monthly(traffic, "arm64").values()) for traffic in TRAFFIC]
    rows = [(name, [bill[name] for bill in bills]) for name in bills[0]]
    rows += [("**all**", [sum(bill.values()) for bill in bills]), ("all, on arm64", arm)]
    lines = ["| US dollars a month | " + " | ".join(f"{traffic.photos:,} photos" for traffic in TRAFFIC) + " |"]
    lines += ["| --- |" + " ---: |" * len(TRAFFIC)]
    lines += [f"| {name} | " + " | ".join(f"{amount:,.2f}" for amount in amounts) + " |" for name, amounts in rows]
    lines += ["| calls at a time, on average | " + " | ".join(f"{busy(traffic):,.2f}" for traffic in TRAFFIC) + " |"]
    lines += ["", "| US dollars a million | |", "| --- | ---: |"]
    lines += [f"| {name} | {amount:,.2f} |" for name, amount in extras().items()]
    lines += ["", "Assumed: " + "; ".join(assumptions()) + "."]
    return "\n".join(lines)


def assumptions() -> list[str]:
    """What the figures rest on, besides the prices."""
    dense = ", ".join(f"{traffic.events_a_call:g}" for traffic in TRAFFIC)
    cold = ", ".join(f"{traffic.cold:.1%}" for traffic in TRAFFIC)
    return [
        "list prices of US East (N. Virginia) as known in November 2026, no free tier",
        f"{MEMORY_MB} MB of memory",
        f"{CAPTION_MS} ms for a photo and {SEEN_MS} ms to see that a copy is our own (not yet measured on Lambda)",
        f"a cold start of {START_MS} ms for {cold} of the calls",
        f"{dense} events a call",
        f"records of {RECORD_KB} KB, in the table and in its index",
        f"{LOG_KB} KB of logs an event",
        "one trace a second and 5 % of the rest",
        "keeping the photos, and uploading them, is not counted",
    ]


def _compute(milliseconds: float, architecture: str = "x86_64", memory: int = MEMORY_MB) -> float:
    return memory / 1024 * milliseconds / 1000 * LAMBDA_GB_SECOND[architecture]


if __name__ == "__main__":
    print(report())
