"""Training: one loop for every stage, on whatever backend Keras runs on.

A stage says how deep it learns and what from:

    depth   frozen   the decoder, on the encoder's features kept on disk
            tail     the decoder and the encoder's last stages, on the trunk's output kept on disk
            full     everything, on pixels kept on disk
    reward  words    cross-entropy of the references' next words
            cider    self-critical: captions drawn from the model, each weighted by how much better it is than the
                     others drawn for the same photo (Rennie et al. 2017; Luo 2020), in CIDEr-D

A run is a folder: `run.json` (what was asked, the vocabulary), `log.jsonl` (a line an epoch), `checkpoint.npz` (where
it stands: weights, their average, optimizer) and `best.npz` (the averaged weights of the best epoch on dev). Arrays are
stored by the weights' names, so that a run started on one backend or machine goes on on another.
"""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from convert import data, encoders
from convert.cider import CiderD
from convert.data import END, PAD, UNKNOWN
from convert.decoder import DecoderConfig, build_decoder, write
from convert.settings import Settings
from convert.weights import read_bundle

BATCHES_A_BUCKET = 16  # so many batches are sorted by length together
AVERAGE_EVERY = 5  # updates: copying the weights out takes as long as a tenth of one


class Captioner(keras.Model):
    """What learns: `vision` (the part of the encoder that does, or None) and the decoder.

    Inputs: {"photos": (N, ...), "tokens": T arrays (N, C)} (a list, since TensorFlow would forget the length of an
    axis that varies, and the decoder's loop over it could not be unrolled), outputs: logits (N, C, T, V). The loss is
    the sum over words of sample weight times smoothed cross-entropy, divided by N C.
    """

    def __init__(self, vision: keras.Model | None, decoder: keras.Model, label_smoothing: float):
        super().__init__(name="captioner")
        self.vision, self.decoder, self.label_smoothing = vision, decoder, label_smoothing

    def see(self, photos, training=False):
        photos = ops.cast(photos, "float32")
        return photos if self.vision is None else self.vision(photos, training=training)

    def call(self, inputs, training=False):
        tokens = ops.stack(inputs["tokens"], axis=-1)
        return self.decoder(self.see(inputs["photos"], training), tokens, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        y, sample_weight = ops.convert_to_tensor(y), ops.convert_to_tensor(sample_weight)  # not every backend has
        log_probs = ops.log_softmax(y_pred)
        picked = ops.take_along_axis(log_probs, y[..., None], axis=-1)[..., 0]
        smooth = self.label_smoothing
        likelihood = (1 - smooth) * picked + smooth * ops.mean(log_probs, axis=-1)
        captions = ops.shape(y)[0] * ops.shape(y)[1]
        return -ops.sum(likelihood * sample_weight) / ops.cast(captions, "float32")


class Writer(keras.Model):
    """Writes captions of photos, for `predict`: the likeliest words, or `samples` drawn a photo."""

    def __init__(self, captioner: Captioner, longest: int, samples: int, seed: int):
        super().__init__(name="writer")
        self.captioner, self.longest, self.samples = captioner, longest, samples
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, photos):
        grid = self.captioner.see(photos)
        return write(self.captioner.decoder, grid, self.longest, self.samples, self.seeds)


class AdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) with a smaller step for the variables of the encoder."""

    def __init__(self, encoder_rate: float, **options):
        super().__init__(**options)
        self.encoder_rate = encoder_rate

    def build(self, variables):
        super().build(variables)
        self.rates = [1.0 if v.path.startswith("decoder") else self.encoder_rate for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        rate = self.rates[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * rate)


# --- Photos, kept on disk as deep as they need not be learnt --------------------------------------------------------


def _views(settings: Settings, captions: data.Captions, size, cache: Path, views: int) -> np.ndarray:
    """Pixels, uint8 (photos, 1 + views, H, W, 3); view 0 is the plain photo. Other seeds, same views."""
    plain = data.decoded(Path(settings.data), captions.names, size, cache)
    if not views:
        return plain[:, None]
    mirror_ok = ~data.sidedness(captions.tokens)

    def fill(array: np.ndarray) -> None:
        random = np.random.default_rng(0)
        for i in tqdm(range(len(plain)), "augment", unit="photo"):
            array[i, 0] = plain[i]
            for view in range(1, 1 + views):
                array[i, view] = data.augment(plain[i], random, bool(mirror_ok[i]))

    shape = (len(plain), 1 + views, *plain.shape[1:])
    key = {"names": captions.names}
    return data.cached(cache / f"views-{len(plain)}-{views}.npy", shape, "uint8", fill, key)


def photos_at_depth(
    settings: Settings, encoder: encoders.Encoder, captions: data.Captions, cache: Path, views: int
) -> np.ndarray:
    """The input of what learns, (photos, 1 + views, ...): features, the trunk's output as float16, or pixels."""
    cache = cache / encoder.name
    pixels = _views(settings, captions, encoder.size, cache, views)
    if settings.depth == "full":
        return pixels
    model = encoder.model() if settings.depth == "frozen" else encoder.trunk

    def fill(array: np.ndarray) -> None:
        flat, out = pixels.reshape(-1, *pixels.shape[2:]), array.reshape(-1, *array.shape[2:])
        for start in tqdm(range(0, len(flat), 64), f"{encoder.name} {settings.depth}", unit="batch"):
            out[start : start + 64] = model.predict_on_batch(flat[start : start + 64])

    shape = (*pixels.shape[:2], *model.output_shape[1:])
    key = {"names": captions.names, "weights": _digest(model)}
    return data.cached(cache / f"{settings.depth}-{len(pixels)}-{views}.npy", shape, "float16", fill, key)


def _digest(model: keras.Model) -> str:
    """A hash of all weights: features of another encoder are other features."""
    return hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()


# --- Weights by name ------------------------------------------------------------------------------------------------


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """The learnt weights by their paths."""
    return {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}


def put_weights(model: keras.Model, weights: dict[str, np.ndarray], partial: bool = False) -> None:
    """Set the weights that `weights` names; with `partial` the model need not have them all.

    Raises:
        ValueError: a name that the model has not, or another shape.
    """
    variables = {v.path: v for v in model.trainable_variables}
    for path, array in weights.items():
        if path in variables:
            variables[path].assign(array)
        elif not partial:
            raise ValueError(f"the model has no weight {path}")


def load_best(run: Path) -> dict[str, np.ndarray]:
    """The averaged weights of a run's best epoch."""
    with np.load(run / "best.npz") as best:
        return dict(best)


@dataclass(frozen=True)
class Start:
    """What a stage begins with: a run's best epoch, a bundle, or the average of several of them."""

    weights: dict[str, np.ndarray]
    vocabulary: list[str]
    decoder: dict  # DecoderConfig's fields
    steps: list[dict]  # the settings of the stages before


def read_start(folder: Path) -> Start:
    """Read the folder of a run or of a bundle.

    Raises:
        FileNotFoundError: it is neither.
    """
    if (folder / "bundle.json").exists():
        origin = json.loads((folder / "bundle.json").read_text("utf-8"))["provenance"]
        vocabulary = json.loads((folder / "vocabulary.json").read_text("utf-8"))
        return Start(read_bundle(folder), vocabulary, origin["decoder"], origin["steps"])
    run = json.loads((folder / "run.json").read_text())
    return Start(load_best(folder), run["vocabulary"], run["decoder"], run["steps"])


def read_average(folders: list[Path]) -> Start:
    """The average of runs that began alike and went on apart, by other seeds say (Wortsman et al. 2022, "Model soups").

    Raises:
        FileNotFoundError: one is neither run nor bundle.
        ValueError: their weights or words differ, so that they have no average.
    """
    first, *others = starts = [read_start(folder) for folder in folders]
    shapes = {name: array.shape for name, array in first.weights.items()}
    for folder, other in zip(folders[1:], others, strict=True):
        if other.vocabulary != first.vocabulary or {n: a.shape for n, a in other.weights.items()} != shapes:
            raise ValueError(f"{folder} is no model like {folders[0]}: their weights cannot be averaged")
    weights = {name: np.mean([s.weights[name] for s in starts], axis=0) for name in first.weights}
    steps = first.steps + [step for other in others for step in other.steps if step not in first.steps]
    return replace(first, weights=weights, steps=steps)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write beside, then rename: a run cut off while saving keeps its last checkpoint."""
    partial = path.with_name("partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


# --- The loop -------------------------------------------------------------------------------------------------------


def batches(lengths: np.ndarray, size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Photo numbers in batches of `size`, photos of like caption length together, in random order."""
    order = random.permutation(len(lengths))
    chunk = size * BATCHES_A_BUCKET
    out = []
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        part = part[np.argsort(lengths[part], kind="stable")]
        out += [part[i : i + size] for i in range(0, len(part) - size + 1, size)]  # whole batches: no new shapes
    return [out[i] for i in random.permutation(len(out))]


def _trim(tokens: np.ndarray) -> np.ndarray:
    """Cut the padding that all captions share, to a multiple of three words: few shapes, few compilations."""
    longest = int((tokens != PAD).sum(axis=-1).max())
    return tokens[..., : min(tokens.shape[-1], -(-longest // 3) * 3)]


def _advantage(rewards: np.ndarray) -> np.ndarray:
    """(N, S) -> each reward less the mean of the photo's others."""
    others = (rewards.sum(axis=1, keepdims=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def until_end(tokens: np.ndarray) -> list[int]:
    """The tokens of one caption, END included if it is there, padding left out."""
    return [int(t) for t in tokens if t != PAD]


def _optimizer(settings: Settings, steps: int) -> AdamW:
    """Half an epoch of warm-up, then a cosine down to `final_rate`; biases, norms and the encoder do not decay."""
    warmup = steps // 2
    rate = keras.optimizers.schedules.CosineDecay(
        0.05 * settings.learning_rate,
        max(1, settings.epochs * steps - warmup),
        alpha=settings.final_rate,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = AdamW(
        settings.encoder_rate, learning_rate=rate, weight_decay=settings.weight_decay, global_clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", settings.encoder])
    return optimizer


def _save_checkpoint(out: Path, now: dict, average: dict, optimizer: AdamW, epoch: int) -> None:
    _save(
        out / "checkpoint.npz",
        {f"now/{path}": array for path, array in now.items()}
        | {f"average/{path}": array for path, array in average.items()}
        | {f"optimizer/{i}": ops.convert_to_numpy(v) for i, v in enumerate(optimizer.variables)}
        | {"epoch": np.array(epoch)},
    )


def _load_checkpoint(out: Path, model: Captioner, optimizer: AdamW) -> tuple[dict[str, np.ndarray], int]:
    """Put weights and optimizer back where they stood; the weights' average and the epoch."""
    with np.load(out / "checkpoint.npz") as saved:
        put_weights(model, {k.removeprefix("now/"): saved[k] for k in saved.files if k.startswith("now/")})
        average = {k.removeprefix("average/"): saved[k] for k in saved.files if k.startswith("average/")}
        for i, variable in enumerate(optimizer.variables):
            variable.assign(saved[f"optimizer/{i}"])
        return average, int(saved["epoch"])


class Dev:
    """Dev photos and references; scores greedy captions by CIDEr as coco-caption does, on this project's tokens."""

    def __init__(self, photos: np.ndarray, captions: data.Captions, vocabulary: list[str]):
        self.photos, self.captions, self.vocabulary = photos, captions, vocabulary
        self.scorer = CiderD(captions.tokens)

    def score(self, writer: Writer) -> dict[str, float]:
        rows = np.concatenate(
            [writer.predict_on_batch(self.photos[i : i + 100, 0])[:, 0] for i in range(0, len(self.photos), 100)]
        )
        written = [[self.vocabulary[t] for t in row if t not in (PAD, END)] for row in rows]
        scores = [self.scorer.score(i, caption) for i, caption in enumerate(written)]
        return {
            "cider": round(100 * float(np.mean(scores)), 2),
            "length": round(float(np.mean([len(c) for c in written])), 2),
        }


def train(settings: Settings, out: Path, cache: Path, start: list[Path] | None = None, resume: bool = False) -> dict:
    """Run a stage and return the log line of its best epoch.

    `start` is the run or bundle that it begins with, or several, whose average it begins with; no epoch at all
    (`epochs` 0) keeps that and scores it.

    Raises:
        DataError: the data set cannot be used.
        WeightsError: the encoder's ImageNet weights are missing or wrong.
        ValueError: `start` does not fit, or `out` holds a run already and `resume` is not set.
    """
    if (out / "run.json").exists() and not resume:
        raise ValueError(f"{out} holds a run already: --resume it, or choose another folder")
    keras.utils.set_random_seed(settings.seed)
    folder = Path(settings.data)
    captions, dev_captions = data.read_captions(folder, "train"), data.read_captions(folder, "dev")
    origin = read_average(start) if start else None
    vocabulary = origin.vocabulary if origin else data.build_vocabulary(captions, settings.minimum_count)

    encoder = encoders.build(settings.encoder)
    if origin:
        put_weights(encoder.model(), origin.weights, partial=True)
    photos = photos_at_depth(settings, encoder, captions, cache, settings.views)
    dev_photos = photos_at_depth(settings, encoder, dev_captions, cache, 0)
    targets = data.encode(captions.tokens, vocabulary, settings.longest)
    lengths = (targets != PAD).sum(axis=-1).max(axis=-1)

    features = encoder.tail.output_shape[-1]
    if origin:
        config = replace(DecoderConfig(**origin.decoder), dropout=settings.dropout)
    else:
        config = DecoderConfig(
            len(vocabulary),
            features,
            settings.units,
            settings.word_units,
            dropout=settings.dropout,
            kind=settings.decoder,
        )
    decoder = build_decoder(config)
    vision = {"frozen": None, "tail": encoder.tail, "full": encoder.model()}[settings.depth]
    model = Captioner(vision, decoder, settings.label_smoothing if settings.reward == "words" else 0.0)
    model.built = True
    if origin:
        put_weights(decoder, origin.weights, partial=True)
    steps = len(batches(lengths, settings.photos_a_batch, np.random.default_rng(0)))
    optimizer = _optimizer(settings, steps)
    model.compile(optimizer, jit_compile=keras.backend.backend() == "jax")
    optimizer.build(model.trainable_variables)
    # On the way only: dev captions are greedy here and searched with the shipped runtime in `convert evaluate`.
    dev = Dev(dev_photos, dev_captions, vocabulary)
    reader = Writer(model, settings.longest, 0, settings.seed)
    sampler = Writer(model, settings.longest, settings.samples, settings.seed)
    reward = CiderD([[until_end(c) for c in photo] for photo in targets]) if settings.reward == "cider" else None

    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(
        json.dumps(
            {
                "settings": asdict(settings),
                "decoder": asdict(decoder.config),
                "vocabulary": vocabulary,
                "start": [str(folder) for folder in start or []],
                "steps": (origin.steps if origin else []) + ([asdict(settings)] if settings.epochs else []),
                "versions": {"keras": keras.__version__, "backend": keras.backend.backend(), "numpy": np.__version__},
            }
        )
    )
    inherited = origin.weights if origin else {}
    average, epoch, best = weights_of(model), 0, {"epoch": 0, "cider": -1.0}
    if resume and (out / "checkpoint.npz").exists():
        average, epoch = _load_checkpoint(out, model, optimizer)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        lines = [line for line in lines if line["epoch"] <= epoch]  # it may have stopped before the checkpoint
        (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        best = max(lines, key=lambda line: line["cider"])
    elif start:
        best = {"epoch": 0, **dev.score(reader)}
        _save(out / "best.npz", inherited | average)
        (out / "log.jsonl").write_text(json.dumps(best) + "\n")

    updates = epoch * steps
    while epoch < settings.epochs and epoch - best["epoch"] < settings.patience:
        epoch += 1
        began = time.time()
        random = np.random.default_rng((settings.seed, epoch))
        losses, rewards = [], []
        progress = tqdm(batches(lengths, settings.photos_a_batch, random), f"epoch {epoch}/{settings.epochs}")
        for batch in progress:
            view = random.integers(0, photos.shape[1], len(batch))
            seen = photos[batch, view]
            words = targets[batch]
            weight = ((words != PAD) & (words != UNKNOWN)).astype("float32")
            if reward:
                drawn = sampler.predict_on_batch(seen)  # (N, S, longest + 1)
                scores = np.array(
                    [[reward.score(p, until_end(c)) for c in of] for p, of in zip(batch, drawn, strict=True)]
                )
                rewards.append(scores.mean())
                one = random.integers(words.shape[1])  # one reference a photo keeps the language
                weight = np.concatenate(
                    [_advantage(scores)[..., None] * (drawn != PAD), settings.words_kept * weight[:, [one]]], axis=1
                ).astype("float32")
                words = np.concatenate([drawn, words[:, [one]]], axis=1)
            words = _trim(words)
            weight = weight[..., : words.shape[-1]]
            tokens = list(np.moveaxis(words, -1, 0))
            loss = model.train_on_batch({"photos": seen, "tokens": tokens}, words, sample_weight=weight)
            losses.append(float(loss))
            updates += 1
            if updates % AVERAGE_EVERY == 0:
                keep = min(settings.average**AVERAGE_EVERY, updates / (updates + 50))  # soon forget the first weights
                for path, array in weights_of(model).items():
                    average[path] += (1 - keep) * (array - average[path])
            shown = {"loss": f"{np.mean(losses[-50:]):.3f}"}
            if rewards:
                shown["reward"] = f"{np.mean(rewards[-50:]):.3f}"
            progress.set_postfix(shown)

        now = weights_of(model)
        put_weights(model, average)
        line = {
            "epoch": epoch,
            **dev.score(reader),
            "loss": round(float(np.mean(losses)), 4),
            **({"reward": round(float(np.mean(rewards)), 4)} if rewards else {}),
            "seconds": round(time.time() - began, 1),
        }
        if line["cider"] > best["cider"]:
            best = line
            _save(out / "best.npz", inherited | average)
        put_weights(model, now)
        with open(out / "log.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")
        _save_checkpoint(out, now, average, optimizer, epoch)
        print(json.dumps(line), flush=True)
    return best
