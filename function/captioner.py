"""Captions for photos: a bundle's encoder once, then beam search over its decoder.

Nothing in here knows which networks a bundle holds. The search is a pure function over a callable, `step`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from function.bundles import Bundle, BundleError, load_bundle
from function.sentences import flawed, sentence

# step(prefixes, parents) -> log-probabilities of the next token, (B, V), or whatever else it was made to ask for;
# the caller may write on it
#   prefixes  int64 (B, L)  the tokens of each beam so far, the start token first; L grows by one at each step
#   parents   int64 (B,)    the row that each beam had at the step before, at first its photo
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
    confidence: float | None = None  # see function.confidence; None where the bundle is not calibrated


def as_json(captions: Sequence[Caption]) -> dict[str, Any]:
    """A photo's captions, best first, as records and answers say them; without confidence where there is none."""

    def fields(caption: Caption) -> dict[str, Any]:
        said = {"text": caption.text, "log_probability": round(caption.log_probability, 6)}
        if caption.confidence is not None:
            said["confidence"] = round(caption.confidence, 3)
        return said

    best = fields(captions[0])
    return {
        "caption": best["text"],
        **({"confidence": best["confidence"]} if "confidence" in best else {}),
        "captions": [fields(caption) for caption in captions],
    }


class Captioner:
    """A bundle at work. Make it once: it holds the two onnxruntime sessions.

    With `sentence_case` a text is "A dog runs.", else "a dog runs", which is what scores are made of.
    """

    def __init__(self, bundle: Bundle, sentence_case: bool = False) -> None:
        self.bundle = bundle
        self.sentence_case = sentence_case
        self.name = bundle.name
        self.image_size = bundle.image_size  # (width, height) in pixels

    def caption(self, pixels: NDArray[np.uint8], beams: int | None = None) -> list[list[Caption]]:
        """Caption photos, uint8 (N, H, W, 3) RGB of `image_size`: at most `beams` for each, the best first.

        Flawed captions (function.sentences.flawed) come after all others. `beams` is the bundle's own number
        unless given. Raises ValueError for fewer than one.
        """
        bundle = self.bundle
        beams = bundle.beams if beams is None else beams
        if beams < 1:
            raise ValueError(f"beams is {beams}, expected at least 1")
        if not len(pixels):
            return []
        encoded = self._encode(pixels)
        found = beam_search(
            self._step(encoded, "log_probs"),
            photos=len(pixels),
            beams=beams,
            start=bundle.start,
            end=bundle.end,
            never=bundle.never,
            longest=bundle.longest_caption,
            length_exponent=bundle.length_exponent,
            flawed=lambda tokens: flawed(self.words(tokens), bundle.never_last),
        )
        confidence = bundle.confidence
        known = confidence.known(encoded[confidence.tensor]).tolist() if confidence else [None] * len(found)
        return [
            [self._written(hypothesis, of_photo) for hypothesis in hypotheses]
            for hypotheses, of_photo in zip(found, known, strict=True)
        ]

    def attention(self, pixels: NDArray[np.uint8], tokens: Sequence[int]) -> NDArray[np.float32]:
        """Where the decoder looks in a photo, uint8 (H, W, 3), as it says each token: (words, rows, columns).

        A word's weights sum to 1 over a grid that lies over the photo. A bundle has them as a row of regions,
        which are taken for a square grid, its rows one after another. Raises BundleError where the decoder has
        no `attention`, or regions that make no square, and ValueError where there are no tokens.
        """
        if "attention" not in (tensor.name for tensor in self.bundle.decoder.get_outputs()):
            raise BundleError(f"the model {self.name} cannot show where it looks: its decoder has no attention")
        if not tokens:
            raise ValueError("a caption without words looks nowhere")
        said = np.array([[self.bundle.start, *tokens]])
        step = self._step(self._encode(pixels[None]), "attention")
        same = np.zeros(1, dtype=np.int64)  # one beam, its own parent
        weights = np.concatenate([step(said[:, :length], same) for length in range(1, said.shape[1])])
        side = math.isqrt(weights.shape[1])
        if side**2 != weights.shape[1]:
            raise BundleError(f"the model {self.name} looks at {weights.shape[1]} regions, which is no square grid")
        return weights.reshape(-1, side, side)

    def words(self, tokens: Sequence[int]) -> list[str]:
        """The vocabulary's words for tokens."""
        return [self.bundle.vocabulary[token] for token in tokens]

    def _encode(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        """The contexts and first states of photos, (N, H, W, 3).

        One by one, which is as fast as all at once, and takes the memory of one.
        """
        names = self.bundle.contexts + self.bundle.states
        each = [self.bundle.encoder.run(names, {"image": photo[None]}) for photo in pixels]
        return {name: np.concatenate(values) for name, *values in zip(names, *each, strict=True)}

    def _step(self, encoded: dict[str, NDArray[np.generic]], output: str) -> Step:
        """A step of the decoder that answers with one of its outputs."""
        return (self._prefix_step if self.bundle.prefix else self._state_step)(encoded, output)

    def _state_step(self, encoded: dict[str, NDArray[np.generic]], output: str) -> Step:
        """A step of a decoder that reads the last token and its states."""
        bundle = self.bundle
        contexts = _Contexts(encoded, bundle.contexts)
        feeds = {name: encoded[name] for name in bundle.states}
        outputs = [output, *(f"next_{name}" for name in bundle.states)]

        def step(prefixes: NDArray[np.int64], parents: NDArray[np.int64]) -> NDArray[np.float32]:
            feeds["token"] = prefixes[:, -1]
            feeds.update({name: feeds[name][parents] for name in bundle.states}, **contexts.of(parents))
            answer, *states = bundle.decoder.run(outputs, feeds)
            feeds.update(zip(bundle.states, states, strict=True))
            return answer  # type: ignore[no-any-return]

        return step

    def _prefix_step(self, encoded: dict[str, NDArray[np.generic]], output: str) -> Step:
        """A step of a decoder that reads the whole caption so far, left-padded where its width is fixed."""
        bundle = self.bundle
        contexts = _Contexts(encoded, bundle.contexts)
        (width,) = (tensor.shape[1] for tensor in bundle.decoder.get_inputs() if tensor.name == "tokens")

        def step(prefixes: NDArray[np.int64], parents: NDArray[np.int64]) -> NDArray[np.float32]:
            missing = width - prefixes.shape[1] if isinstance(width, int) else 0
            tokens = np.pad(prefixes, ((0, 0), (missing, 0)), constant_values=bundle.pad)
            return bundle.decoder.run([output], {**contexts.of(parents), "tokens": tokens})[0]  # type: ignore[no-any-return]

        return step

    def _written(self, hypothesis: Hypothesis, known: float | None) -> Caption:
        """The caption of a photo that is `known` (see function.confidence)."""
        bundle = self.bundle
        text = sentence(self.words(hypothesis.tokens), bundle.glue, self.sentence_case)
        confidence = None
        if bundle.confidence and known is not None:
            confidence = known * bundle.confidence.right(score(hypothesis, bundle.length_exponent))
        return Caption(text, hypothesis.log_probability, hypothesis.tokens, confidence)


class _Contexts:
    """What the encoder says once of each photo, (N, ...), for each beam: copied only when beams begin or end."""

    def __init__(self, encoded: dict[str, NDArray[np.generic]], names: Sequence[str]) -> None:
        self._encoded = self._beamed = {name: encoded[name] for name in names}
        self._photos = np.arange(len(next(iter(encoded.values()))))  # of the beams

    def of(self, parents: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        """For beams with these rows at the step before, which was the last one asked for: (B, ...)."""
        photos = self._photos[parents]
        if not np.array_equal(photos, self._photos):
            self._photos = photos
            self._beamed = {name: value[photos] for name, value in self._encoded.items()}
        return self._beamed


def load_captioner(folder: Path | None = None, sentence_case: bool = False) -> Captioner:
    """The captioner of a bundle's folder: by default $BUNDLE, or else the bundle beside this file.

    Raises function.bundles.BundleError.
    """
    folder = folder or Path(os.environ.get("BUNDLE") or Path(__file__).with_name("bundle"))
    return Captioner(load_bundle(folder), sentence_case)


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
    flawed: Callable[[Sequence[int]], bool],
) -> list[list[Hypothesis]]:
    """Search for the likeliest captions of N = `photos` photos at once, K = `beams` at most alive for each.

    Each step ranks all continuations of a photo's live beams by their sums of log-probabilities, ties to the
    lower beam * V + token, and keeps the K best. Those that end are finished, the others live on, and only they
    are asked of `step`: one beam is greedy search. A caption has at most `longest` tokens, the end token not
    counted. The answer is the K best finished ones, those whose tokens are `flawed` after all that are not, and
    within each by sum / length ** `length_exponent`, the end token counted, ties to the one that ended earlier
    (Wu et al. 2016, arXiv:1609.08144, section 7, though by plain length). A photo of which no beam ended gets the
    best unfinished one. Raises FloatingPointError where `step` answers NaN.
    """
    # The B live beams, a photo's one after another, best first; at first one for each photo
    photo = parents = np.arange(photos)
    rank = np.zeros(photos, dtype=np.intp)  # 0 to K - 1, among those of its photo
    sums: NDArray[np.floating[Any]] = np.zeros(photos)  # of log-probabilities
    prefixes = np.full((photos, 1), start, dtype=np.int64)
    finished: list[list[Hypothesis]] = [[] for _ in range(photos)]
    sound: list[list[float]] = [[] for _ in range(photos)]  # scores of the finished that are not flawed
    unfinished = [Hypothesis((), 0.0)] * photos

    for length in range(1, longest + 2):  # of what ends in this step, the end token counted
        log_probs = step(prefixes, parents)  # (B, V)
        log_probs[:, never] = -np.inf
        tokens, best = _best(log_probs, beams)  # (B, K): no more of one beam's can be among its photo's K best
        if np.isnan(best).any():
            raise FloatingPointError("the decoder's log-probabilities are not numbers")
        rows = np.zeros((photos, beams), dtype=np.intp)
        rows[photo, rank] = np.arange(len(photo))
        totals = np.full((photos, beams, beams), -np.inf)
        totals[photo, rank] = sums[:, None] + best
        chosen, kept = _best(totals.reshape(photos, -1), beams)  # (N, K); -inf: none
        beam, nth = np.divmod(chosen, beams)
        row = np.take_along_axis(rows, beam, axis=1)
        token = tokens[row, nth]

        for n, k in np.argwhere((token == end) & (kept > -np.inf)).tolist():
            done = Hypothesis(tuple(prefixes[row[n, k], 1:].tolist()), float(kept[n, k]))
            finished[n].append(done)
            if not flawed(done.tokens):
                sound[n].append(score(done, length_exponent))
            kept[n, k] = -np.inf
        if length > longest:
            break
        for n, (k, top) in enumerate(zip(kept.argmax(axis=1).tolist(), kept.max(axis=1).tolist(), strict=True)):
            if len(sound[n]) >= beams:
                # A sum only falls and a score is best at full length: no live beam can do better than this.
                bound = top / math.pow(longest + 1, length_exponent)
                if bound <= sorted(sound[n])[-beams]:
                    kept[n] = -np.inf
            elif not finished[n] and top > -np.inf:
                words = (*prefixes[row[n, k], 1:].tolist(), int(token[n, k]))
                unfinished[n] = Hypothesis(words, top)
        photo, rank = np.nonzero(kept > -np.inf)
        if not len(photo):
            break
        parents, sums = row[photo, rank], kept[photo, rank]
        prefixes = np.column_stack([prefixes[parents], token[photo, rank]])  # (B, 1 + length)
    return [
        sorted(all_ended, key=lambda done: (flawed(done.tokens), -score(done, length_exponent)))[:beams] or [best_left]
        for all_ended, best_left in zip(finished, unfinished, strict=True)
    ]


def score(hypothesis: Hypothesis, length_exponent: float) -> float:
    """What captions are ranked by: the sum of log-probabilities over length, the end token counted."""
    return hypothesis.log_probability / math.pow(len(hypothesis.tokens) + 1, length_exponent)


def _best(values: NDArray[np.floating[Any]], k: int) -> tuple[NDArray[np.intp], NDArray[np.floating[Any]]]:
    """The k best in each row and where they are, (B, M) -> 2 x (B, k): best first, ties to the lower index.

    Takes them out of `values`. NaN counts as best; where fewer than k are above -inf, the others are -inf. To look
    k times is fastest for a few of thousands.
    """
    rows = np.arange(len(values))
    chosen, best = np.empty((len(values), k), dtype=np.intp), np.empty((len(values), k), dtype=values.dtype)
    for at in range(k):
        chosen[:, at] = values.argmax(axis=1)
        best[:, at] = values[rows, chosen[:, at]]
        values[rows, chosen[:, at]] = -np.inf
    return chosen, best
