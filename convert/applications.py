"""Encoders that other people took their features from: keras.applications, each with the pixels it was trained with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
from keras import applications, ops

from convert import encoders
from convert.keras_files import ModelError, load_model

# name -> (what builds it, what its pixels go through, the side of its photos)
KNOWN = {
    "xception": (applications.Xception, applications.xception.preprocess_input, 299),
    "inceptionv3": (applications.InceptionV3, applications.inception_v3.preprocess_input, 299),
    "inceptionresnetv2": (applications.InceptionResNetV2, applications.inception_resnet_v2.preprocess_input, 299),
    "vgg16": (applications.VGG16, applications.vgg16.preprocess_input, 224),
    "vgg19": (applications.VGG19, applications.vgg19.preprocess_input, 224),
    "resnet50": (applications.ResNet50, applications.resnet50.preprocess_input, 224),
    "resnet101": (applications.ResNet101, applications.resnet.preprocess_input, 224),
    "mobilenetv2": (applications.MobileNetV2, applications.mobilenet_v2.preprocess_input, 224),
    "densenet201": (applications.DenseNet201, applications.densenet.preprocess_input, 224),
    **{
        f"efficientnetb{n}": (
            getattr(applications, f"EfficientNetB{n}"),
            applications.efficientnet.preprocess_input,
            (224, 240, 260, 300, 380, 456, 528, 600)[n],
        )
        for n in range(8)
    },
}
FC2 = 4096  # features of VGG's second dense layer, which tutorials take


@dataclass(frozen=True)
class Vision:
    """A photo in, its features out: `call(pixels)` takes float (N, side, side, 3), 0 to 255."""

    name: str
    size: tuple[int, int]  # (width, height)
    call: Callable


def build_vision(name: str, features: tuple[int, ...], weights: str | Path | None = "imagenet") -> Vision:
    """The encoder of that name, or of a Keras file, that gives features of this shape: (width,) or (regions, width).

    A file's model takes pixels from 0 to 255. `weights` is a file, or "imagenet", which Keras downloads, or None.

    Raises:
        ModelError: there is none of that name, or its features are of another width.
    """
    if Path(name).suffix in (".keras", ".h5") or Path(name).is_dir():
        model = load_model(Path(name))
        shape, given = (tuple(tensors[0].shape) for tensors in (model.inputs, model.outputs))
        if len(shape) != 4 or None in shape[1:]:
            raise ModelError(f"{name} takes {shape}; expected photos of one size, (None, height, width, 3)")
        return _fitted(Vision(name, (shape[2], shape[1]), model), given[1:], features)
    if name not in KNOWN:
        raise ModelError(f"no encoder is called {name}: {', '.join(KNOWN)}, or a .keras or .h5 file, or a SavedModel")
    constructor, preprocess, side = KNOWN[name]
    if name == "xception" and weights == "imagenet":  # its weights come in a package
        model = encoders.build(name).model()
        return _fitted(Vision(name, (side, side), model), model.output_shape[1:], features)
    if name.startswith("vgg") and features == (FC2,):
        whole = constructor(weights=weights)
        base = keras.Model(whole.input, whole.get_layer("fc2").output)
    else:
        base = constructor(include_top=False, weights=weights, input_shape=(side, side, 3))
    vision = Vision(name, (side, side), lambda pixels: base(preprocess(pixels)))
    return _fitted(vision, base.output_shape[1:], features)


def _fitted(vision: Vision, given: tuple[int, ...], wanted: tuple[int, ...]) -> Vision:
    """The encoder with its output pooled, or as a row of regions, as the model was trained."""
    regions = given[0] * given[1] if len(given) == 3 else given[0] if len(given) == 2 else 1
    if given[-1] != wanted[-1] or (len(wanted) == 2 and wanted[0] not in (None, regions)):
        raise ModelError(
            f"{vision.name} gives features of shape {given}, the model takes {wanted}: "
            "name the encoder that its features were made with"
        )

    def call(pixels):
        features = vision.call(pixels)
        if len(given) == 3:
            features = ops.reshape(features, (-1, regions, given[-1]))
        return ops.mean(features, axis=1) if len(wanted) == 1 and len(given) > 1 else features

    return Vision(vision.name, vision.size, call)
