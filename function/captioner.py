"""Captions for photos: a bundle's encoder once, then beam search over its decoder.

Nothing in here knows which networks a bundle holds. The search is a pure function over a callable, `step`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from function.bundles import Bundle, load_bundle

# step(prefixes, parents) -> log-probabilities of the next token, (B, V)
#   prefixes  int64 (B, L)  the tokens of each beam so far, the start token first; L grows by one at each step
#   parents   int64 (B,)    the row that each beam had at the step before
Step = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class Hypothesis:
    """One end of a beam search."""

    tokens: tuple[int, ...]  # without the start and the end token
    log_probability: float  # the sum of natural log-probabilities, the end token's included if it ended


@dataclass(frozen=True)
class Caption:
    """A sentence about a photo."""

    text: str
    log_probability: float  # as in Hypothesis
    tokens: tuple[int, ...]


class Captioner:
    """A bundle at work. Make it once: it holds the two onnxruntime sessions."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.name = bundle.name
        self.image_size = bundle.image_size  # (width, height) in pixels

    def caption(self, pixels: NDArray[np.uint8], beams: int | None = None) -> list[list[Caption]]:
        """Caption photos, uint8 (N, H, W, 3) RGB of `image_size`: at most `beams` for each, the best first.

        `beams` is the bundle's own number unless given. Raises ValueError for fewer than one.
        """
        bundle = self.bundle
        beams = bundle.beams if beams is None else beams
        if beams < 1:
            raise ValueError(f"beams is {beams}, expected at least 1")
        if not len(pixels):
            return []
        names = bundle.contexts + bundle.states
        encoded = dict(zip(names, bundle.encoder.run(names, {"image": pixels}), strict=True))
        beamed = {name: np.repeat(value, beams, axis=0) for name, value in encoded.items()}  # (N*K, ...)
        found = beam_search(
            self._prefix_step(beamed) if bundle.prefix else self._state_step(beamed),
            photos=len(pixels),
            beams=beams,
            start=bundle.start,
            end=bundle.end,
            never=bundle.never,
            longest=bundle.longest_caption,
            length_exponent=bundle.length_exponent,
        )
        return [[self._written(hypothesis) for hypothesis in hypotheses] for hypotheses in found]

    def _state_step(self, beamed: dict[str, NDArray[np.generic]]) -> Step:
        """A step of a decoder that reads the last token and its states."""
        bundle = self.bundle
        feeds = dict(beamed)
        outputs = ["log_probs", *(f"next_{name}" for name in bundle.states)]

        def step(prefixes: NDArray[np.int64], parents: NDArray[np.int64]) -> NDArray[np.float32]:
            feeds["token"] = prefixes[:, -1]
            feeds.update({name: feeds[name][parents] for name in bundle.states})
            log_probs, *states = bundle.decoder.run(outputs, feeds)
            feeds.update(zip(bundle.states, states, strict=True))
            return log_probs  # type: ignore[no-any-return]

        return step

    def _prefix_step(self, beamed: dict[str, NDArray[np.generic]]) -> Step:
        """A step of a decoder that reads the whole caption so far, left-padded where its width is fixed."""
        bundle = self.bundle
        (width,) = (tensor.shape[1] for tensor in bundle.decoder.get_inputs() if tensor.name == "tokens")

        def step(prefixes: NDArray[np.int64], parents: NDArray[np.int64]) -> NDArray[np.float32]:
            missing = width - prefixes.shape[1] if isinstance(width, int) else 0
            tokens = np.pad(prefixes, ((0, 0), (missing, 0)), constant_values=bundle.pad)
            return bundle.decoder.run(["log_probs"], {**beamed, "tokens": tokens})[0]  # type: ignore[no-any-return]

        return step

    def _written(self, hypothesis: Hypothesis) -> Caption:
        words = [self.bundle.vocabulary[token] for token in hypothesis.tokens]
        return Caption(sentence(words, self.bundle.glue), hypothesis.log_probability, hypothesis.tokens)


def load_captioner(folder: Path | None = None) -> Captioner:
    """The captioner of a bundle's folder: by default $BUNDLE, or else the bundle beside this file.

    Raises function.bundles.BundleError.
    """
    return Captioner(
        load_bundle(folder or Path(os.environ.get("BUNDLE") or Path(__file__).with_name("bundle")))
    )


def sentence(words: Iterable[str], glue: frozenset[str]) -> str:
    """Join words with spaces, those in `glue` without: "a dog 's ball" is "a dog's ball"."""
    return "".join(word if word in glue else f" {word}" for word in words).lstrip()


def beam_search(
    step: Step,
    *,
    photos: int,
    beams: int,
    start: int,
    end: int,
    never: Sequence[int],
    longest: int,
    length_exponent: float,
) -> list[list[Hypothesis]]:
    """Search for the likeliest captions of N = `photos` photos at once; row n * K + k is beam k of photo n.

    Each step ranks all continuations of a photo's live beams by their sums of log-probabilities, ties to the
    lower beam * V + token, and keeps the K = `beams` best. Those that end are finished, the others live on:
    one beam is greedy search. A caption has at most `longest` tokens, the end token not counted. The answer
    is the K best finished ones by sum / length ** `length_exponent`, the end token counted, ties to the one
    that ended earlier (Wu et al. 2016, arXiv:1609.08144, section 7, though by plain length). A photo of which
    no beam ended gets the best unfinished one. Raises FloatingPointError where `step` answers NaN.
    """
    rows = np.arange(photos * beams)
    prefixes = np.full((photos * beams, 1), start, dtype=np.int64)
    parents = rows
    sums = np.full((photos, beams), -np.inf)  # of log-probabilities; -inf: a dead beam
    sums[:, 0] = 0.0  # at first all beams are equal, so one lives
    finished: list[list[Hypothesis]] = [[] for _ in range(photos)]
    unfinished = [Hypothesis((), 0.0)] * photos

    def score(done: Hypothesis) -> float:
        return done.log_probability / math.pow(len(done.tokens) + 1, length_exponent)

    for length in range(1, longest + 2):  # of what ends in this step, the end token counted
        log_probs = step(prefixes, parents).astype(np.float64)  # (N*K, V)
        if np.isnan(log_probs).any():
            raise FloatingPointError("the decoder's log-probabilities are not numbers")
        log_probs[:, never] = -np.inf
        totals = (sums.reshape(-1, 1) + log_probs).reshape(photos, -1)  # (N, K*V)
        chosen = _best(totals, beams)  # (N, K)
        beam, token = np.divmod(chosen, log_probs.shape[1])
        sums = np.take_along_axis(totals, chosen, axis=1)
        parents = (rows[::beams, None] + beam).ravel()
        prefixes = np.column_stack([prefixes[parents], token.ravel()])  # (N*K, 1 + length)

        ended = (token == end) & (sums > -np.inf)
        for photo, k in np.argwhere(ended):
            words = prefixes[photo * beams + k, 1:-1].tolist()
            finished[photo].append(Hypothesis(tuple(words), float(sums[photo, k])))
        if length > longest:
            break
        sums[ended] = -np.inf
        for photo, (k, top) in enumerate(zip(sums.argmax(axis=1), sums.max(axis=1), strict=True)):
            if len(finished[photo]) >= beams:
                # A sum only falls and a score is best at full length: no live beam can do better than this.
                bound = top / math.pow(longest + 1, length_exponent)
                if bound <= sorted(map(score, finished[photo]))[-beams]:
                    sums[photo] = -np.inf
            elif not finished[photo] and top > -np.inf:
                words = prefixes[photo * beams + k, 1:].tolist()
                unfinished[photo] = Hypothesis(tuple(words), float(top))
        if not (sums > -np.inf).any():
            break
    return [
        sorted(done, key=score, reverse=True)[:beams] or [best]
        for done, best in zip(finished, unfinished, strict=True)
    ]


def _best(totals: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """The indices of the k best in each row, (N, M) -> (N, k): best first, ties to the lower index."""
    threshold = np.partition(totals, -k, axis=1)[:, [-k]]  # (N, 1) the k-th best
    above, level = totals > threshold, totals == threshold
    room = k - above.sum(axis=1, keepdims=True)  # for the first of those that are level
    indices = np.nonzero(above | (level & (level.cumsum(axis=1) <= room)))[1].reshape(-1, k)
    order = np.argsort(-np.take_along_axis(totals, indices, axis=1), axis=1, kind="stable")
    return np.take_along_axis(indices, order, axis=1)
