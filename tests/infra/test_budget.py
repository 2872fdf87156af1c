"""What ships stays as small and as quick to start as it is."""

import json

from infra.budget import BUDGET, grown, measure


def test_nothing_grew():
    assert grown(json.loads(BUDGET.read_text()), measure()) == []


def test_what_grew_is_named():
    budget = {"modules of boto3 at start": 100, "bytes": 1000}
    assert grown(budget, {"modules of boto3 at start": 102, "bytes": 900}) == []
    assert grown(budget, {"modules of boto3 at start": 103, "modules of pandas at start": 1}) == [
        "modules of boto3 at start: 100 -> 103",
        "modules of pandas at start: 0 -> 1",
    ]
