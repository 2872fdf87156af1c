"""The soak, small; and that it would notice."""

from dataclasses import replace

from function import app
from infra.soak import soak


def test_nothing_is_lost_and_nothing_done_twice():
    problems, counts = soak(uploads=150, seed=1)
    assert problems == []
    assert counts["objects at the end"] > 10
    assert counts["killed"] + counts["killed after"] > 0
    assert counts["events repeated"] > 0
    assert counts["dead letters at the end"] == 6


def test_it_notices_messages_that_are_lost():
    def careless(event, service):
        app.answer(event, service)
        return {"batchItemFailures": []}

    problems, _ = soak(uploads=40, seed=1, handler=careless)
    assert "not in the dead letters: forbidden/a.jpg" in problems


def test_it_notices_what_is_not_written_back():
    problems, _ = soak(40, 1, lambda event, service: app.answer(event, replace(service, write_back="none")))
    assert any("its metadata say {}" in problem for problem in problems)
