"""CIDEr-D as a reward: fast on whole numbers, document frequencies fixed, the end token counted.

Vedantam et al. 2015, as coco-caption computes it; the tests hold it against pycocoevalcap's scorer.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import exp, log

import numpy as np

_LONGEST_NGRAM = 4
_SIGMA = 6.0


def _ngrams(tokens: Sequence[int]) -> Counter:
    return Counter(tuple(tokens[i : i + n]) for n in range(1, _LONGEST_NGRAM + 1) for i in range(len(tokens) - n + 1))


class CiderD:
    """The references of a set of photos, ready to score captions of the same photos.

    Each photo keeps one index from n-gram to the references that hold it, so that a caption is scored in one pass over
    its own n-grams, whatever the number of references.
    """

    def __init__(self, references: Iterable[list[Sequence[int]]]):
        """`references[photo]` are token sequences; document frequencies are counted over these photos."""
        counts = [[_ngrams(reference) for reference in photo] for photo in references]
        self._documents = Counter(ngram for photo in counts for ngram in set().union(*photo))
        self._log_photos = log(len(counts))
        self._photos = [self._index(photo) for photo in counts]

    def _weights(self, counts: Counter) -> dict[tuple, float]:
        return {
            ngram: count * (self._log_photos - log(max(1, self._documents[ngram]))) for ngram, count in counts.items()
        }

    def _index(self, photo: list[Counter]):
        postings: dict[tuple, list[tuple[int, float]]] = defaultdict(list)
        norms = np.zeros((len(photo), _LONGEST_NGRAM))
        bigrams = np.zeros(len(photo))
        for r, counts in enumerate(photo):
            for ngram, weight in self._weights(counts).items():
                postings[ngram].append((r, weight))
                norms[r, len(ngram) - 1] += weight * weight
            bigrams[r] = _bigrams(counts)
        return dict(postings), np.sqrt(norms), bigrams

    def score(self, photo: int, caption: Sequence[int]) -> float:
        """CIDEr-D of one caption of photo number `photo`, 0 to 10."""
        postings, norms, bigrams = self._photos[photo]
        counts = _ngrams(caption)
        products = [[0.0] * _LONGEST_NGRAM for _ in bigrams]
        own = [0.0] * _LONGEST_NGRAM
        for ngram, weight in self._weights(counts).items():
            n = len(ngram) - 1
            own[n] += weight * weight
            for r, reference_weight in postings.get(ngram, ()):
                products[r][n] += min(weight, reference_weight) * reference_weight
        scale = norms * np.sqrt(own)
        similar = np.divide(products, scale, out=np.zeros_like(norms), where=scale > 0)
        penalty = [exp(-((_bigrams(counts) - b) ** 2) / (2 * _SIGMA**2)) for b in bigrams]
        return float(10 * np.mean(similar.mean(axis=1) * penalty))


def _bigrams(counts: Counter) -> int:
    """coco-caption's length of a caption is its number of bigrams."""
    return sum(count for ngram, count in counts.items() if len(ngram) == 2)
