"""From a decoder's words to a sentence. What is particular to a language comes from the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def sentence(words: Iterable[str], glue: frozenset[str], sentence_case: bool = False) -> str:
    """Join words with spaces, those in `glue` without: "a dog 's ball" is "a dog's ball".

    With `sentence_case` it begins with a capital and ends with a full stop, unless there are no words at all.
    """
    text = "".join(word if word in glue else f" {word}" for word in words).lstrip()
    return f"{text[0].upper()}{text[1:]}." if sentence_case and text else text


def flawed(words: Sequence[str], never_last: frozenset[str]) -> bool:
    """Whether a caption is one that a person would not have written.

    It dangles, its last word being in `never_last` ("a man with a"); or it says something twice running ("a
    playground playground"), be it with one of those words between ("a white shirt and a white shirt"). What is
    said twice is no phrase if it dangles itself: "on a rock on a hill" is sound. With Flickr8k's English list,
    266 of its 30,000 training captions count as flawed, some for "back to back" and its like.
    """
    return bool(words) and (words[-1] in never_last or _repeats(words, never_last))


def _repeats(words: Sequence[str], joining: frozenset[str]) -> bool:
    for size in range(1, len(words) // 2 + 1):
        for start in range(len(words) - 2 * size + 1):
            end = start + size
            phrase = words[start:end]
            if phrase == words[end : end + size]:
                return True
            joined = words[end] in joining and phrase[-1] not in joining
            if joined and phrase == words[end + 1 : end + 1 + size]:
                return True
    return False
