"""Is the bundle the model that was trained? Keras and onnxruntime side by side on real photos."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from keras import ops
from tqdm import tqdm

from convert.data import END, START
from convert.export import STATES, Trained, looked_at
from function.bundles import load_bundle

TIE = 1e-3  # a step where the first two words are closer than this may go either way
ENCODER_TOLERANCE = 1e-3  # of the largest output
STEP_TOLERANCE = 1e-3  # in log-probability


@dataclass(frozen=True)
class Parity:
    """How far a bundle is from its Keras model, at worst."""

    photos: int
    steps: int
    encoder_difference: float  # largest, over the largest output of the same tensor
    step_difference: float  # largest of any log-probability above -20
    other_words: int  # steps where the two choose differently, ties left out
    ties: int

    @property
    def passed(self) -> bool:
        return (
            self.encoder_difference < ENCODER_TOLERANCE
            and self.step_difference < STEP_TOLERANCE
            and self.other_words == 0
        )

    def __str__(self) -> str:
        return (
            f"parity over {self.photos} photos, {self.steps} greedy steps: encoder outputs differ by at most "
            f"{self.encoder_difference:.1e} of the largest, log-probabilities by {self.step_difference:.1e}; "
            f"{self.other_words} other words, {self.ties} ties: {'passed' if self.passed else 'FAILED'}"
        )


def compare(trained: Trained, bundle: Path, photos: Iterable[np.ndarray]) -> Parity:
    """Follow Keras' greedy caption of each photo, uint8 (H, W, 3), with both.

    Where both choose the same word at every step, the captions are the same.
    """
    loaded = load_bundle(bundle)
    pixels = np.stack(list(photos))
    vision, decoder = trained.encoder.model(), trained.decoder
    worst_encoder, worst_step, steps, other, ties = 0.0, 0.0, 0, 0, 0
    for start in tqdm(range(0, len(pixels), 50), "parity", unit="batch"):
        batch = np.ascontiguousarray(pixels[start : start + 50])
        looked = [ops.convert_to_numpy(x) for x in decoder.look(vision(batch.astype("float32")))]
        names = looked_at(decoder)
        feeds = dict(zip(names, loaded.encoder.run(names, {"image": batch}), strict=True))
        for name, ours in zip(names, looked, strict=True):
            largest = float(np.abs(ours).max()) or 1.0  # a state may begin at nothing
            worst_encoder = max(worst_encoder, float(np.abs(feeds[name] - ours).max()) / largest)
        *contexts, h, c = looked
        token = np.full(len(batch), START, np.int64)
        live = np.ones(len(batch), bool)
        for _ in range(loaded.longest_caption + 1):
            keras_log_probs, _, h, c = decoder.step(token, *contexts, h, c)
            outputs = ["log_probs", *(f"next_{s}" for s in STATES)]
            log_probs, *states = loaded.decoder.run(outputs, {"token": token, **feeds})
            feeds.update(zip(STATES, states, strict=True))
            ours, theirs = ops.convert_to_numpy(keras_log_probs)[live], log_probs[live]
            worst_step = max(worst_step, float(np.abs(ours - theirs)[ours > -20].max()))
            best_two = np.sort(ours[:, END:], axis=-1)[:, -2:]
            differs = ours[:, END:].argmax(-1) != theirs[:, END:].argmax(-1)
            tie = best_two[:, 1] - best_two[:, 0] < TIE
            steps, other, ties = steps + int(live.sum()), other + int((differs & ~tie).sum()), ties + int(tie.sum())
            token = np.where(live, ops.convert_to_numpy(keras_log_probs)[:, END:].argmax(-1) + END, END)
            live &= token != END
            if not live.any():
                break
    return Parity(len(pixels), steps, worst_encoder, worst_step, other, ties)
