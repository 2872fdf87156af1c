"""A bundle that loads also runs; any other is refused in one line that names the file and the fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from function.bundles import BundleError, load_bundle
from tests.tiny_bundle import (
    SIZE,
    VOCABULARY,
    encoder,
    make_tiny_bundle,
    prefix_decoder,
    prefix_encoder,
    step_decoder,
    write_bundle,
)


def refusal(folder: Path) -> str:
    """The one line that refuses this bundle, without its folder."""
    with pytest.raises(BundleError) as refused:
        load_bundle(folder)
    reason = str(refused.value)
    assert "\n" not in reason
    assert reason.startswith(f"{folder}/")
    return reason.removeprefix(f"{folder}/")


def test_loads_a_step_bundle(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path))
    assert (bundle.name, bundle.image_size, bundle.vocabulary) == ("tiny", SIZE, VOCABULARY)
    assert (bundle.contexts, bundle.states, bundle.prefix) == (["context_colour"], ["state_h"], False)
    assert (bundle.start, bundle.end, bundle.never) == (1, 2, [0, 1, 3])
    assert (bundle.longest_caption, bundle.beams, bundle.length_exponent) == (6, 3, 1.0)


def test_loads_a_prefix_bundle(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path, decoder="prefix"))
    assert (bundle.contexts, bundle.states, bundle.prefix) == (["context_colour"], [], True)


def test_uses_the_threads_it_is_told_and_none_of_them_spins(tmp_path: Path) -> None:
    options = load_bundle(make_tiny_bundle(tmp_path), threads=2).decoder.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_sentence_settings_may_be_absent(tmp_path: Path) -> None:
    edit(make_tiny_bundle(tmp_path), lambda document: document.pop("sentence"))
    bundle = load_bundle(tmp_path)
    assert (bundle.glue, bundle.never_last) == (frozenset(), frozenset())


def test_reads_the_words_that_end_no_sentence(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path, sentence={"glue": ["'s"], "never_last": ["a", "on"]}))
    assert (bundle.glue, bundle.never_last) == ({"'s"}, {"a", "on"})


# -- files


@pytest.mark.parametrize("name", ["bundle.json", "encoder.onnx", "decoder.onnx", "vocabulary.json"])
def test_refuses_a_missing_file(tmp_path: Path, name: str) -> None:
    (make_tiny_bundle(tmp_path) / name).unlink()
    assert refusal(tmp_path) == f"{name}: No such file or directory"


def test_refuses_a_missing_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == "bundle.json: No such file or directory"


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "vocabulary.json"])
def test_refuses_a_wrong_hash(tmp_path: Path, name: str) -> None:
    file = make_tiny_bundle(tmp_path) / name
    file.write_bytes(file.read_bytes() + b" ")
    assert refusal(tmp_path).startswith(f"{name}: its sha256 is ")


def test_refuses_a_file_that_the_bundle_does_not_list(tmp_path: Path) -> None:
    edit(make_tiny_bundle(tmp_path), lambda document: document["files"].pop("decoder.onnx"))
    assert refusal(tmp_path) == "bundle.json: files does not list decoder.onnx"


def test_checks_the_hash_of_every_file_listed(tmp_path: Path) -> None:
    edit(make_tiny_bundle(tmp_path), lambda document: document["files"].update({"LICENCE": "0"}))
    assert refusal(tmp_path) == "LICENCE: No such file or directory"


def test_refuses_what_is_no_json(tmp_path: Path) -> None:
    (make_tiny_bundle(tmp_path) / "bundle.json").write_text('{"format": 1,')
    assert refusal(tmp_path).startswith("bundle.json: Expecting property name")


def test_refuses_what_is_no_onnx(tmp_path: Path) -> None:
    class NoModel:
        def SerializeToString(self) -> bytes:
            return b"no model"

    write_bundle(tmp_path, NoModel(), step_decoder())  # type: ignore[arg-type]
    assert refusal(tmp_path).startswith("encoder.onnx: ")


# -- settings


def edit(folder: Path, change: Any) -> None:
    document = json.loads((folder / "bundle.json").read_text())
    change(document)
    (folder / "bundle.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"format": 2}, "format is 2, known is 1"),
        ({"decoder": "magic"}, "decoder is 'magic', known is 'step' or 'prefix'"),
        (
            {"image": {"width": 32, "height": 24, "resize": "crop"}},
            "image.resize is 'crop', known is 'stretch'",
        ),
        ({"image": {"width": 32, "resize": "stretch"}}, "image.height is missing"),
        ({"image": None}, "image.width is missing"),
        ({"name": 7}, "name is 7, expected str"),
        ({"longest_caption": "20"}, 'longest_caption is "20", expected int'),
        ({"longest_caption": True}, "longest_caption is true, expected int"),
        ({"longest_caption": 0}, "longest_caption is 0, expected at least 1"),
        ({"decoding": {"beams": 0, "length_exponent": 1}}, "decoding.beams is 0, expected at least 1"),
        (
            {"decoding": {"beams": 3, "length_exponent": -1}},
            "decoding.length_exponent is -1, expected at least 0",
        ),
        ({"sentence": {"glue": ["'s", 1]}}, 'sentence.glue is ["\'s", 1], expected a list of str'),
        ({"sentence": {"never_last": "a"}}, 'sentence.never_last is "a", expected a list of str'),
        (
            {"tokens": {"pad": 0, "start": 1, "end": 12, "never": []}},
            "token 12 is outside the vocabulary of 12",
        ),
        (
            {"tokens": {"pad": 0, "start": 1, "end": 2, "never": [-1]}},
            "token -1 is outside the vocabulary of 12",
        ),
        (
            {"tokens": {"pad": 0, "start": 1, "end": 2, "never": [2]}},
            "the end token 2 is in tokens.never, so that no caption could end",
        ),
    ],
)
def test_refuses_wrong_settings(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    make_tiny_bundle(tmp_path, **settings)
    assert refusal(tmp_path) == f"bundle.json: {reason}"


def test_refuses_a_vocabulary_that_is_no_list_of_strings(tmp_path: Path) -> None:
    write_bundle(tmp_path, encoder(), step_decoder(), vocabulary=[1, 2])  # type: ignore[list-item]
    assert refusal(tmp_path) == "vocabulary.json: not a list of strings"


# -- tensors


def test_refuses_a_vocabulary_of_another_size_than_the_decoder_s(tmp_path: Path) -> None:
    write_bundle(tmp_path, encoder(), step_decoder(), vocabulary=[*VOCABULARY, "more"])
    assert refusal(tmp_path) == ("decoder.onnx: log_probs is tensor(float) (B, 12), expected tensor(float) (B, 13)")


def test_refuses_another_image_size_than_the_encoder_s(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path, image={"width": 24, "height": 32, "resize": "stretch"})
    assert refusal(tmp_path) == (
        "encoder.onnx: image is tensor(uint8) (N, 24, 32, 3), expected tensor(uint8) (N, 32, 24, 3)"
    )


def renamed(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """The model with another name for a tensor."""
    for tensor in [*model.graph.input, *model.graph.output]:
        tensor.name = new if tensor.name == old else tensor.name
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    return model


def test_refuses_an_encoder_without_image(tmp_path: Path) -> None:
    write_bundle(tmp_path, renamed(encoder(), "image", "pixels"), step_decoder())
    assert refusal(tmp_path) == "encoder.onnx: its inputs are pixels, expected image"


def test_refuses_an_encoder_s_output_of_another_name(tmp_path: Path) -> None:
    write_bundle(tmp_path, renamed(encoder(), "state_h", "h"), step_decoder())
    assert refusal(tmp_path) == "encoder.onnx: output h is neither a context_* nor a state_*"


def test_refuses_a_decoder_that_reads_what_the_encoder_does_not_say(tmp_path: Path) -> None:
    write_bundle(tmp_path, encoder(), renamed(step_decoder(), "context_colour", "context_grid"))
    assert refusal(tmp_path) == (
        "decoder.onnx: its inputs are context_grid, state_h, token, expected context_colour, state_h, token"
    )


@pytest.mark.parametrize("name", ["log_probs", "next_state_h"])
def test_refuses_a_decoder_without_an_output(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path, encoder(), renamed(step_decoder(), name, "other"))
    assert refusal(tmp_path) == f"decoder.onnx: output {name} is missing"


def test_refuses_a_batch_axis_that_is_fixed(tmp_path: Path) -> None:
    fixed = encoder()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    write_bundle(tmp_path, fixed, step_decoder())
    assert refusal(tmp_path).startswith("encoder.onnx: image is tensor(uint8) (1, 24, 32, 3), expected")


def test_refuses_a_token_of_another_type(tmp_path: Path) -> None:
    narrow = step_decoder()
    narrow.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    write_bundle(tmp_path, encoder(), narrow)
    assert refusal(tmp_path) == "decoder.onnx: token is tensor(int32) (B), expected tensor(int64) (B)"


def test_refuses_attention_that_is_no_row_of_regions(tmp_path: Path) -> None:
    decoder = step_decoder()
    decoder.graph.output[2].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    decoder.graph.node.append(onnx.helper.make_node("Cast", ["weights"], ["attention"], to=onnx.TensorProto.DOUBLE))
    decoder.graph.node[-2].output[:] = ["weights"]
    write_bundle(tmp_path, encoder(), decoder)
    assert refusal(tmp_path) == (
        "decoder.onnx: attention is tensor(double) (B, 4), expected tensor(float) (B, regions)"
    )


def test_refuses_a_prefix_decoder_with_states(tmp_path: Path) -> None:
    write_bundle(tmp_path, encoder(), step_decoder(), decoder="prefix")
    assert refusal(tmp_path) == "decoder.onnx: a prefix decoder carries no state, the encoder has state_h"


def test_refuses_a_prefix_decoder_too_narrow_for_the_longest_caption(tmp_path: Path) -> None:
    write_bundle(tmp_path, prefix_encoder(), prefix_decoder(width=6), decoder="prefix")
    assert refusal(tmp_path) == "decoder.onnx: it reads 6 tokens, the longest caption and its start are more"
