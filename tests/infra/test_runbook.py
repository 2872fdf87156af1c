"""The runbook says what the templates hold, and what the cost script prints."""

import json
import re

import pytest

from infra import cost
from infra.template import TEMPLATE, Stack, read_template

INFRA = TEMPLATE.parent / "infra"
RUNBOOK = (INFRA / "RUNBOOK.md").read_text()
NAMES = {"Function": "captions-f", "Uploads": "u", "DeadLetters": "d", "Records": "r", "Api": "a"}
WATCH = Stack(path=INFRA / "watch.yaml", parameters={"Name": "captions", "Email": "a@example.org", **NAMES})
ALARMS = [name for name in WATCH.resources if WATCH.type(name) == "AWS::CloudWatch::Alarm"]


@pytest.mark.parametrize("alarm", ALARMS)
def test_each_alarm_is_in_the_runbook_and_on_the_dashboard_and_goes_to_the_topic(alarm):
    properties = WATCH.properties(alarm)
    assert f"| `{properties['AlarmName']}` |" in RUNBOOK
    assert f'"{WATCH.arn(alarm)}"' in WATCH.properties("Dashboard")["DashboardBody"]
    assert properties["AlarmActions"] == ["Alarms"]
    assert properties["TreatMissingData"] == "notBreaching"  # a stack that nobody uses does not ring


def test_alarms_watch_what_is_there():
    watched = {
        (properties["MetricName"], properties["Dimensions"][0]["Value"]) for properties in map(WATCH.properties, ALARMS)
    }
    assert watched == {
        ("ApproximateNumberOfMessagesVisible", "d"),
        ("ApproximateAgeOfOldestMessage", "u"),
        ("Errors", "captions-f"),
        ("Throttles", "captions-f"),
        ("Duration", "captions-f"),
        ("5xx", "a"),
    }


def test_without_an_address_nobody_is_told():
    silent = Stack(path=INFRA / "watch.yaml", parameters={"Name": "captions", "Email": "", **NAMES})
    assert not silent.has("Alarms")
    assert all("AlarmActions" not in silent.properties(alarm) for alarm in ALARMS)


def test_the_topic_takes_this_stacks_alarms_and_nothing_else():
    (statement,) = WATCH.properties("AlarmsPolicy")["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Condition"]["ArnLike"] == {
        "aws:SourceArn": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:captions-*"
    }


def own_metrics():
    widgets = json.loads(WATCH.properties("Dashboard")["DashboardBody"])["widgets"]
    return [
        metric for widget in widgets for metric in widget["properties"].get("metrics", []) if metric[0] == "Captions"
    ]


def test_the_dashboard_shows_the_metrics_of_this_stack():
    variables = Stack().properties("Captions")["Environment"]["Variables"]
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "Captions"
    assert {(metric[2], metric[3]) for metric in own_metrics()} == {("service", variables["POWERTOOLS_SERVICE_NAME"])}


def test_each_output_that_the_runbook_asks_for_is_one_of_the_stack():
    asked = set(re.findall(r"output (\w+)", RUNBOOK)) - {"text"}
    assert asked <= set(read_template()["Outputs"])


def test_the_runbook_shows_what_the_script_prints():
    assert cost.report() in RUNBOOK


def test_the_costs_are_those_of_this_template():
    assert int(Stack().ref("Memory")) == cost.MEMORY_MB
    assert len(ALARMS) == cost.ALARMS
    assert len({metric[1] for metric in own_metrics()}) == cost.METRICS - 4  # a model and three reasons


def test_a_bill_by_hand():
    """A million photos: 1.33 million calls of 1.5 events, of which one in a hundred starts cold."""
    bill = cost.monthly(cost.TRAFFIC[1])
    seconds = 1_000_000 * 0.290 + 1_333_333 * 0.01 * 3
    assert bill["Lambda"] == pytest.approx(seconds * 1769 / 1024 * 0.0000166667 + 1.333333 * 0.20, rel=1e-5)
    assert bill["S3: a copy and two reads a photo"] == pytest.approx(5 + 2 * 0.4)
    assert bill["DynamoDB: requests"] == pytest.approx(4 * 0.625 + 2 * 0.125)
    assert bill["Traces"] == pytest.approx(1.333333 * 5, rel=1e-5)
