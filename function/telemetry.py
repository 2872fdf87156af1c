"""What the function tells of itself: logs as JSON, and metrics in CloudWatch's embedded format, both by Powertools.

Neither may hold a photo's bytes, a signed link or the body of a request. Environment: POWERTOOLS_SERVICE_NAME (the
stack; default: captions), POWERTOOLS_METRICS_NAMESPACE (default: Captions), POWERTOOLS_LOG_LEVEL (default: INFO).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, Metrics, MetricUnit

from function.records import Record

SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "captions")
NAMESPACE = os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "Captions")

# Powertools names its logger by the service: by this name it is the parent of all loggers in this package.
logger = Logger(service=__package__)
logger.append_keys(service=SERVICE)

metrics = Metrics(namespace=NAMESPACE, service=SERVICE)
_turn = Lock()  # Powertools' metrics are not made for threads


@contextmanager
def correlated(identifier: str | None) -> Iterator[None]:
    """All that this thread logs in here is about this message, task or request."""
    logger.thread_safe_append_keys(correlation_id=identifier)
    try:
        yield
    finally:
        logger.thread_safe_remove_keys(["correlation_id"])


def measure(name: str, value: float) -> None:
    """Keeps a value until `flush`. What is called …Milliseconds is that, Confidence a number, all else a count."""
    if name.endswith("Milliseconds"):
        unit = MetricUnit.Milliseconds
    else:
        unit = MetricUnit.NoUnit if name == "Confidence" else MetricUnit.Count
    with _turn:
        metrics.add_metric(name=name, unit=unit, value=value)


def count(record: Record) -> None:
    """Counts a record that is news: all of them, captions by their model, rejections by the kind of their reason."""
    measure(record.status.title(), 1)
    if record.confidence is not None:
        measure("Confidence", record.confidence)
    if record.status == "captioned":
        _count_by("Captioned", "model", record.model or "person")
    elif record.reason:
        # The words before a colon are one of few; each value of a dimension is a metric that is paid for.
        _count_by("Rejected", "reason", record.reason.partition(":")[0])


def flush() -> None:
    """Writes what was measured to standard output, where CloudWatch finds it."""
    if metrics.metric_set:
        metrics.flush_metrics()


def _count_by(name: str, dimension: str, value: str) -> None:
    by = EphemeralMetrics(namespace=NAMESPACE, service=SERVICE)  # all metrics of an object share its dimensions
    by.add_dimension(dimension, value)
    by.add_metric(name=name, unit=MetricUnit.Count, value=1)
    with _turn:  # or two lines of the log might become one
        by.flush_metrics()
