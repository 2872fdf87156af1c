"""A bundle is the model it was made of, and says so."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from conftest import SAMPLES, TINY, needs_xception
from onnx import numpy_helper

from convert import export as exporting
from convert.parity import compare
from convert.settings import Settings
from convert.train import load_best, read_start, train
from convert.weights import read_bundle
from function.captioner import load_captioner
from function.photos import read_photo


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    return exporting.export(run, folder, "tiny"), folder


def photos(size):
    return [read_photo(path.read_bytes(), size).pixels for path in SAMPLES]


def test_keras_and_onnxruntime_agree_on_real_photos(bundle):
    trained, folder = bundle
    parity = compare(trained, folder, photos(trained.encoder.size))
    assert parity.passed, str(parity)
    assert parity.steps > len(SAMPLES)


def test_the_shipped_runtime_says_what_was_learnt(bundle):
    _, folder = bundle
    captioner = load_captioner(folder)
    captions = captioner.caption(np.stack(photos(captioner.image_size)))
    right = [path.stem in found[0].text.split() for path, found in zip(SAMPLES, captions, strict=True)]
    assert sum(right) >= len(SAMPLES) - 1


def test_another_weight_fails_the_comparison(bundle, tmp_path):
    trained, folder = bundle
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = onnx.load(tmp_path / "decoder.onnx")
    (weight,) = (i for i in model.graph.initializer if i.name == "decoder/query/kernel")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float16(1.5), weight.name))
    onnx.save(model, tmp_path / "decoder.onnx")
    settings = json.loads((tmp_path / "bundle.json").read_text())
    settings["files"]["decoder.onnx"] = exporting.sha256(tmp_path / "decoder.onnx")
    (tmp_path / "bundle.json").write_text(json.dumps(settings))
    parity = compare(trained, tmp_path, photos(trained.encoder.size))
    assert not parity.passed
    assert "FAILED" in str(parity)


def test_the_decoder_is_one_step_without_loops(bundle):
    _, folder = bundle
    operators = {node.op_type for node in onnx.load(folder / "decoder.onnx").graph.node}
    assert not operators & {"Loop", "Scan", "If", "Dropout"}


def test_weights_are_stored_once_and_as_float16(bundle):
    _, folder = bundle
    for file in ("encoder.onnx", "decoder.onnx"):
        large = [i for i in onnx.load(folder / file).graph.initializer if np.prod(i.dims) >= exporting.STORED_IN_HALF]
        assert {i.data_type for i in large} == {onnx.TensorProto.FLOAT16}
        contents = [numpy_helper.to_array(i).tobytes() for i in large]
        assert len(set(contents)) == len(contents)


def test_the_trained_weights_come_out_of_a_bundle_again(bundle, run):
    _, folder = bundle
    held = read_bundle(folder)
    for path, array in load_best(run).items():
        assert held[path] == pytest.approx(array, abs=2e-3), path


def test_training_goes_on_from_a_bundle(bundle, run, flickr, cache, tmp_path):
    _, folder = bundle
    settings = Settings(**json.loads((run / "run.json").read_text())["settings"])
    train(replace(settings, epochs=1, learning_rate=1e-6), tmp_path / "more", cache, start=[folder])
    step = read_start(tmp_path / "more").steps[0]
    assert step == read_start(run).steps[0] | {"data": flickr.name}  # a bundle names no path of the machine
    start, *_ = (json.loads(line) for line in (tmp_path / "more" / "log.jsonl").read_text().splitlines())
    best = max(json.loads(line)["cider"] for line in (run / "log.jsonl").read_text().splitlines())
    assert start["cider"] == pytest.approx(best, rel=0.05)


def test_a_run_without_a_best_epoch_is_refused(tmp_path, run):
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    with pytest.raises(FileNotFoundError):
        exporting.export(tmp_path, tmp_path / "bundle", "none")
    assert not (tmp_path / "bundle").exists()


@needs_xception
def test_xception_goes_the_same_way(flickr, cache, tmp_path):
    settings = Settings(data=str(flickr), encoder="xception", epochs=1, **{**TINY, "views": 0})
    train(settings, tmp_path / "run", cache)
    trained = exporting.export(tmp_path / "run", tmp_path / "bundle", "xception")
    assert trained.encoder.size == load_captioner(tmp_path / "bundle").image_size == (299, 299)
    parity = compare(trained, tmp_path / "bundle", photos((299, 299))[:2])
    assert parity.passed, str(parity)
