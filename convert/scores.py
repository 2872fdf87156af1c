"""BLEU, METEOR, ROUGE-L and CIDEr as the field computes them: PTB tokens and coco-caption's scorers (pycocoevalcap).

The tokeniser and METEOR are Java programs inside that package. Without Java the captions are tokenised by
`convert.data`, which agrees on all but a few captions in ten thousand, and METEOR is left out.
"""

import shutil
import sys

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from convert.data import tokenize


def has_java() -> bool:
    return shutil.which("java") is not None


def _tokenised(captions: list[list[str]]) -> dict[int, list[str]]:
    if has_java():
        return PTBTokenizer().tokenize({i: [{"caption": c} for c in cs] for i, cs in enumerate(captions)})
    return {i: [" ".join(tokenize(c)) for c in cs] for i, cs in enumerate(captions)}


def score(captions: list[str], references: list[list[str]]) -> dict[str, np.ndarray | float]:
    """Score one caption a photo against its references.

    Returns:
        `BLEU-1` to `BLEU-4`, `METEOR` (with Java), `ROUGE-L`, `CIDEr`: of the whole set, x100;
        `cider` (photos,): of each photo, x100.
    """
    hypotheses, truth = _tokenised([[c] for c in captions]), _tokenised(references)
    bleu, _ = Bleu(4).compute_score(truth, hypotheses, verbose=0)
    scores = {f"BLEU-{n}": 100 * value for n, value in enumerate(bleu, 1)}
    if has_java():
        scores["METEOR"] = 100 * Meteor().compute_score(truth, hypotheses)[0]
    else:
        print("no java: METEOR left out, captions tokenised by convert.data", file=sys.stderr)
    scores["ROUGE-L"] = 100 * Rouge().compute_score(truth, hypotheses)[0]
    cider, each = Cider().compute_score(truth, hypotheses)
    return scores | {"CIDEr": 100 * cider, "cider": 100 * np.asarray(each)}
