"""The reward is coco-caption's CIDEr-D."""

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from convert.cider import CiderD


def test_it_equals_coco_captions_on_random_captions():
    random = np.random.default_rng(0)
    references = [[random.integers(0, 12, random.integers(1, 15)).tolist() for _ in range(5)] for _ in range(30)]
    captions = [random.integers(0, 12, random.integers(1, 15)).tolist() for _ in range(30)]
    as_text = [[" ".join(map(str, caption)) for caption in photo] for photo in references]
    expected, each = Cider().compute_score(
        dict(enumerate(as_text)), {i: [" ".join(map(str, c))] for i, c in enumerate(captions)}
    )
    scorer = CiderD(references)
    scores = [scorer.score(photo, caption) for photo, caption in enumerate(captions)]
    assert scores == pytest.approx(list(each), abs=1e-9)
    assert np.mean(scores) == pytest.approx(expected)


def test_an_empty_caption_scores_nothing():
    assert CiderD([[[1, 2]], [[3]]]).score(0, []) == 0
