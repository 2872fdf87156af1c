"""From words to a sentence, and which ones no person would have written."""

from __future__ import annotations

import pytest

from function.sentences import flawed, sentence

NEVER_LAST = frozenset({"a", "and", "in", "of", "on", "the", "with"})


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", "dog", "runs"], "a dog runs"),
        (["a", "dog", "'s", "ball"], "a dog's ball"),
        (["they", "do", "n't", "run"], "they don't run"),
        (["'s"], "'s"),
        ([], ""),
    ],
)
def test_words_are_joined_by_the_bundle_s_rules(words: list[str], text: str) -> None:
    assert sentence(words, frozenset({"'s", "n't"})) == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", "dog", "runs"], "A dog runs."),
        (["two", "dogs", "in", "Rome"], "Two dogs in Rome."),
        (["été"], "Été."),
        ([], ""),
    ],
)
def test_sentence_case_is_a_capital_and_a_full_stop(words: list[str], text: str) -> None:
    assert sentence(words, frozenset(), sentence_case=True) == text


@pytest.mark.parametrize(
    "caption",
    [
        "a man with a",
        "a man in a hat and",
        "with",
        "a dog dog runs",
        "a girl on a playground playground",
        "a man in the snow in the snow",
        "a man in a white shirt and a white shirt",
        "a brown dog and a brown dog play",
        "a girl on a horse on a horse",
        "a white and white dog",
    ],
)
def test_flawed(caption: str) -> None:
    assert flawed(caption.split(), NEVER_LAST)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "dog",
        "a dog runs",
        "a dog on a rock on a hill",
        "a man in a red shirt and a woman in a red shirt",
        "a man in a red shirt in a red car",
        "a group of people in front of a crowd of people",
        "a black dog and a white dog",
        "a man sits",
    ],
)
def test_sound(caption: str) -> None:
    assert not flawed(caption.split(), NEVER_LAST)


def test_without_a_list_of_words_only_what_is_said_twice_running_is_flawed() -> None:
    assert not flawed(["a", "man", "with", "a"], frozenset())
    assert not flawed(["a", "dog", "and", "a", "dog"], frozenset())
    assert flawed(["a", "dog", "dog"], frozenset())
