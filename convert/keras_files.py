"""A Keras model from a file that somebody else wrote, years ago perhaps."""

import json
import re
from pathlib import Path

import keras

from convert.tokenizers import LFS_POINTER


class ModelError(ValueError):
    """This model cannot be converted; the message says why, and what to do."""


def load_model(path: Path, weights: Path | None = None) -> keras.Model:
    """A model from `.keras`, from `.h5` of Keras 2 or 3, or from a JSON architecture with `weights` beside it.

    Raises:
        ModelError: the file is not one of these, is damaged, or needs code that is not in it.
    """
    if (path / "saved_model.pb").exists():
        raise ModelError(f"{path} is a SavedModel, which holds no layers any more: save it as .keras where it was made")
    if path.is_dir():
        raise ModelError(f"{path} is a folder and no SavedModel: a .keras, .h5 or .json file is expected")
    for file in filter(None, (path, weights)):
        with file.open("rb") as opened:
            if opened.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelError(f"{file} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    try:
        if path.suffix == ".json":
            if weights is None:
                raise ModelError(f"{path} is an architecture without weights: say --weights too")
            model = keras.models.model_from_json(json.dumps(json.loads(path.read_text())), custom_objects=OLD_NAMES)
            model.load_weights(weights)
            return model
        return keras.models.load_model(path, custom_objects=OLD_NAMES, compile=False)
    except ModelError:
        raise
    except Exception as error:  # Keras, h5py and zipfile each have their own
        said = " ".join(str(error).split())
        if found := re.search(r"(?:Could not locate class|Unknown layer:) '(\w+)'", said):
            raise ModelError(f"{path} needs {found[1]}, a layer of its own whose code is not in it") from error
        if "Lambda" in said:
            raise ModelError(
                f"{path} holds a Lambda layer, which is code, and is not run: write it as a layer"
            ) from error
        raise ModelError(f"{path} cannot be read as a Keras model ({type(error).__name__}): {said[:300]}") from error


class _NotTimeMajor:
    """Keras 2 wrote `time_major`, which Keras 3 does not know; all captioners have the batch first."""

    def __init__(self, *arguments, time_major=False, **settings):
        if time_major:
            raise ModelError("a recurrent layer has the time first (time_major): train it with the batch first")
        super().__init__(*arguments, **settings)


class LSTM(_NotTimeMajor, keras.layers.LSTM):
    pass


class GRU(_NotTimeMajor, keras.layers.GRU):
    pass


# What files name and Keras 3.15 does not find by itself: recurrent layers of Keras 2, and its own operations in an .h5.
OPERATIONS = {
    name: kind
    for name, kind in vars(keras.src.ops.numpy).items()
    if isinstance(kind, type) and issubclass(kind, keras.Operation) and not hasattr(keras.layers, name)
}
OLD_NAMES = {"LSTM": LSTM, "GRU": GRU, **OPERATIONS}
