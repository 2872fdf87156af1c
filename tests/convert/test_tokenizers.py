import collections
import json
import pickle
import sys
import types
from pathlib import Path

import pytest

from convert.tokenizers import TokenizerError, read_tokenizer

LEGACY = Path(__file__).parents[3] / "shared" / "legacy"
WORDS = ["startseq", "endseq", "a", "dog", "runs"]


@pytest.fixture
def keras_pickle(tmp_path, monkeypatch):
    """A pickle of Keras' Tokenizer, as the module of that name would write it."""

    def write(module="keras_preprocessing.text", **fields):
        class Tokenizer:
            pass

        Tokenizer.__module__, Tokenizer.__qualname__ = module, "Tokenizer"
        for end in range(1, len(parts := module.split(".")) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(module))
        sys.modules[module].Tokenizer = Tokenizer
        tokenizer = Tokenizer()
        held = {
            "word_index": {word: token for token, word in enumerate(WORDS, 1)},
            "word_counts": collections.OrderedDict.fromkeys(WORDS, 3),
            "word_docs": collections.defaultdict(int, dict.fromkeys(WORDS, 2)),
            "num_words": None,
        }
        vars(tokenizer).update(held | fields)
        (tmp_path / "tokenizer.p").write_bytes(pickle.dumps(tokenizer))
        return tmp_path / "tokenizer.p"

    return write


@pytest.mark.parametrize("module", ["keras_preprocessing.text", "tf_keras.src.preprocessing.text"])
def test_a_pickled_tokenizer_gives_its_words(keras_pickle, module):
    words = read_tokenizer(keras_pickle(module))
    assert words.vocabulary == ["<pad>", *WORDS]
    assert (words.pad, words.start, words.end, words.unknown) == (0, 1, 2, 0)
    assert str(words) == "6 tokens; pad 0 ('<pad>'), start 1 ('startseq'), end 2 ('endseq'), unknown 0 ('<pad>')"


def test_words_beyond_num_words_were_never_trained(keras_pickle):
    assert read_tokenizer(keras_pickle(num_words=4)).vocabulary == ["<pad>", *WORDS[:3]]


def test_the_word_for_unknown_ones_is_known(keras_pickle):
    assert read_tokenizer(keras_pickle(oov_token="a")).unknown == 3


@pytest.mark.parametrize(
    ("file", "size", "pair"),
    [("dataflair_tokenizer.p", 7577, ("start", "end")), ("startseq_tokenizer.pkl", 7596, ("startseq", "endseq"))],
)
def test_tokenizers_of_other_people_are_read(file, size, pair):
    if not (LEGACY / file).exists():
        pytest.skip(f"{LEGACY / file} is not there")
    words = read_tokenizer(LEGACY / file)
    assert (words.vocabulary[words.start], words.vocabulary[words.end]) == pair
    assert len(words.vocabulary) in (size, size + 1)


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((__import__("os").system, "touch /tmp/owned"), "system"),
        ((open, "/etc/passwd"), "open"),
        ((__import__, "antigravity"), "__import__"),
        ((eval, "1 + 1"), "eval"),
        ((getattr, "a", "upper"), "getattr"),
        ((__import__("subprocess").Popen, ["true"]), "Popen"),
    ],
    ids=["command", "file", "module", "code", "attribute", "process"],
)
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"word_index": it}], ids=["alone", "within"])
def test_a_pickle_that_would_run_something_is_refused_by_name(tmp_path, call, named, wrap):
    (tmp_path / "tokenizer.p").write_bytes(pickle.dumps(wrap(Evil(*call))))
    with pytest.raises(TokenizerError, match=rf"it asks for \w+\.{named}, which no tokenizer needs"):
        read_tokenizer(tmp_path / "tokenizer.p")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_old_protocols_are_no_way_round(tmp_path, protocol):
    (tmp_path / "tokenizer.p").write_bytes(pickle.dumps(Evil(eval, "1"), protocol))
    with pytest.raises(TokenizerError, match=r"\.eval, which no tokenizer needs"):
        read_tokenizer(tmp_path / "tokenizer.p")


@pytest.mark.parametrize(
    "content",
    [
        {"class_name": "Tokenizer", "config": {"word_index": json.dumps({w: i for i, w in enumerate(WORDS, 1)})}},
        {word: token for token, word in enumerate(WORDS, 1)},
        {str(token): word for token, word in enumerate(WORDS, 1)},
        ["<pad>", *WORDS],
        {"class_name": "TextVectorization", "config": {"vocabulary": ["<pad>", *WORDS]}},
    ],
    ids=["to_json", "word to token", "token to word", "list", "TextVectorization"],
)
def test_json_of_every_kind(tmp_path, content):
    (tmp_path / "words.json").write_text(json.dumps(content))
    assert read_tokenizer(tmp_path / "words.json").vocabulary == ["<pad>", *WORDS]


VECTORIZED = ["", "[UNK]", "start", "end", "a", "dog"]


@pytest.fixture
def vectorization():
    """Keras' layer that has seen words, in the order of how often."""
    from keras import layers

    layer = layers.TextVectorization(standardize=None, output_sequence_length=5)
    layer.adapt(["start start start start end end end a a dog"])
    assert layer.get_vocabulary() == VECTORIZED
    return layer


def test_a_layers_vocabulary_pickled_as_a_list_of_numpys_strings(vectorization, tmp_path):
    (tmp_path / "words.pkl").write_bytes(pickle.dumps(vectorization.get_vocabulary()))
    words = read_tokenizer(tmp_path / "words.pkl")
    assert (words.vocabulary, words.start, words.end, words.unknown) == (["<pad>", *VECTORIZED[1:]], 2, 3, 1)


def test_a_layer_saved_in_a_model(vectorization, tmp_path):
    import keras

    text = keras.Input((), dtype="string")
    keras.Model(text, vectorization(text)).save(tmp_path / "words.keras")
    assert read_tokenizer(tmp_path / "words.keras").vocabulary == ["<pad>", *VECTORIZED[1:]]
    empty = keras.Model(photo := keras.Input((2,)), keras.layers.Dense(2)(photo))
    empty.save(tmp_path / "none.keras")
    with pytest.raises(TokenizerError, match="has no TextVectorization that has seen words"):
        read_tokenizer(tmp_path / "none.keras")


def test_a_layer_of_keras_2_pickled_as_its_settings_and_weights(tmp_path):
    import tf_keras

    layer = tf_keras.layers.TextVectorization(standardize=None, output_sequence_length=5)
    layer.adapt(["start start start start end end end a a dog"])
    kept = {"config": layer.get_config(), "weights": layer.get_weights()}
    (tmp_path / "words.pkl").write_bytes(pickle.dumps(kept))
    assert read_tokenizer(tmp_path / "words.pkl").vocabulary == ["<pad>", *VECTORIZED[1:]]


def test_a_word_a_line(tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(["<pad>", *WORDS]))
    assert read_tokenizer(tmp_path / "words.txt").end == 2


def test_start_and_end_may_be_said(tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(["<pad>", *WORDS]))
    words = read_tokenizer(tmp_path / "words.txt", "a", "runs")
    assert (words.start, words.end) == (3, 5)
    with pytest.raises(TokenizerError, match="has no word 'begin'"):
        read_tokenizer(tmp_path / "words.txt", "begin", "runs")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer.*git lfs pull"),
        (b"{broken", "is no JSON"),
        (b"\x80\x04 broken", "no pickle that can be read"),
        (b"[1, 2]", "holds a list"),
        (b'["a", "b"]', "none of the usual start and end words: say --start and --end"),
        (b"\xff\xfe", "neither JSON nor a pickle"),
    ],
)
def test_what_is_no_tokenizer_is_said_to_be_none(tmp_path, content, reason):
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(TokenizerError, match=reason):
        read_tokenizer(tmp_path / "words.txt")
