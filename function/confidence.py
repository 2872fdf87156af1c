"""How far a caption can be believed, from 0 to 1: the photo is one that the model knows, and the caption is right.

    confidence = sigmoid(weights . v + bias) * sigmoid(slope * score + offset)

v is a vector that the bundle's encoder says of the photo; the score is the search's, the caption's log-probability
over its length to the bundle's exponent. `convert calibrate` fits both factors and writes them to confidence.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Confidence:
    """The numbers of the formula above."""

    tensor: str  # which output of the encoder v is, (N, D)
    weights: NDArray[np.float64]  # (D,)
    bias: float
    slope: float
    offset: float

    def known(self, vectors: NDArray[np.generic]) -> NDArray[np.float64]:
        """The first factor for photos, (N, D) -> (N,)."""
        return sigmoid(np.asarray(vectors, np.float64) @ self.weights + self.bias)

    def right(self, score: float) -> float:
        """The second factor for a caption."""
        return float(sigmoid(np.array(self.slope * score + self.offset)))


def read_confidence(data: bytes) -> Confidence:
    """confidence.json. Raises ValueError or KeyError where it is not what `convert calibrate` writes."""
    document = json.loads(data)
    weights = np.array(document["weights"], dtype=np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all():
        raise ValueError("weights are not a list of numbers")
    return Confidence(
        str(document["tensor"]),
        weights,
        *(float(document[name]) for name in ("bias", "slope", "offset")),
    )


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + e**-x), without overflow."""
    return np.exp(-np.logaddexp(0, -x))
