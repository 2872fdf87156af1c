"""Other people's vocabularies: Keras' Tokenizer, pickled or as JSON, TextVectorization's words, lists, dictionaries.

A pickle is a program. It is read here without running it: `Reader` knows the classes that a tokenizer is made of, each
as an inert stand-in, and refuses everything else by its name. Of a `.keras` only the words in it are read.
"""

import collections
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

# Start and end as captioning projects call them. Keras' own filters strip <> from "<start>", so both spellings are met.
USUAL_PAIRS = (
    ("startseq", "endseq"),
    ("<start>", "<end>"),
    ("start", "end"),
    ("[start]", "[end]"),
    ("<startseq>", "<endseq>"),
    ("<s>", "</s>"),
    ("<sos>", "<eos>"),
    ("<bos>", "<eos>"),
    ("sos", "eos"),
    ("bos", "eos"),
)
LFS_POINTER = b"version https://git-lfs"


class TokenizerError(ValueError):
    """This file holds no vocabulary that can be read; the message says why, and what to do."""


@dataclass(frozen=True)
class Words:
    """A vocabulary, and which of its words mean more than themselves."""

    vocabulary: list[str]  # the index is the token
    pad: int
    start: int
    end: int
    unknown: int  # `pad` where there is no such word

    def __str__(self) -> str:
        named = {name: getattr(self, name) for name in ("pad", "start", "end", "unknown")}
        said = ", ".join(f"{name} {token} ({self.vocabulary[token]!r})" for name, token in named.items())
        return f"{len(self.vocabulary)} tokens; {said}"


def read_tokenizer(path: Path, start: str | None = None, end: str | None = None) -> Words:
    """The words of a tokenizer's file; `start` and `end` are guessed from the usual pairs unless given.

    Raises:
        TokenizerError: it cannot be read, is not a tokenizer, or has no such words.
    """
    data = path.read_bytes()
    if data.startswith(LFS_POINTER):
        raise TokenizerError(f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    by_index, unknown = _index(path, _content(path, data))
    if not by_index or max(by_index) > 10 * len(by_index) + 100:
        raise TokenizerError(f"{path}: these are no words counted from 0 or 1")
    vocabulary = [by_index.get(token, "") or ("" if token else "<pad>") for token in range(max(by_index) + 1)]
    tokens = {word: token for token, word in enumerate(vocabulary)}
    start, end = _pair(path, tokens, start, end)
    pad = 0
    return Words(vocabulary, pad, tokens[start], tokens[end], tokens.get(unknown or "", pad))


def _content(path: Path, data: bytes):
    """What the file holds: as JSON, as a pickle, or as a word a line."""
    if data[:1] in b"{[":
        try:
            return json.loads(data)
        except ValueError as error:
            raise TokenizerError(f"{path} is no JSON: {error}") from error
    if data[:2] == b"PK":
        return _words_of_layer(path)
    if data[:1] == b"\x80" or path.suffix in (".p", ".pkl", ".pickle"):
        return read_pickle(path)
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is neither JSON nor a pickle nor a word a line in UTF-8") from error


def _words_of_layer(path: Path) -> dict:
    """What a `.keras` keeps of the TextVectorization in it: its words, a line each, without padding's."""
    try:
        with zipfile.ZipFile(path) as archive:
            kept = [name for name in archive.namelist() if name.endswith("/vocabulary.txt")]
            if kept:
                return {"vocabulary": archive.read(kept[0]).decode().split("\n")}
            found = _vectorization(json.loads(archive.read("config.json")))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise TokenizerError(f"{path} is no .keras that can be read: {error}") from error
    if found is None:
        raise TokenizerError(f"{path} has no TextVectorization that has seen words")
    return {"vocabulary": found}


def _vectorization(config) -> list | None:
    """The words in a layer's configuration, wherever it stands in a model's."""
    match config:
        case {"class_name": "TextVectorization", "config": {"vocabulary": list(words)}}:
            return words
        case dict() | list():
            inner = config.values() if isinstance(config, dict) else config
            return next((words for part in inner if (words := _vectorization(part))), None)
    return None


def _index(path: Path, content) -> tuple[dict[int, str], str | None]:
    """Token -> word, and the word that stands for those that are not known."""
    if isinstance(content, Tokenizer):
        content = vars(content)
    match content:
        case {"class_name": "Tokenizer", "config": {"word_index": str(words), **rest}}:
            return _of_tokenizer(path, {**rest, "word_index": json.loads(words)})
        case {"word_index": dict()}:
            return _of_tokenizer(path, content)
        case {"config": {}, "weights": [list(words), *_]} if all(isinstance(word, str | bytes) for word in words):
            return dict(enumerate(["", "[UNK]", *map(_text, words)])), "[UNK]"  # TextVectorization, pickled in two
        case {"config": {"vocabulary": list(words)}} | {"vocabulary": list(words)}:  # TextVectorization
            return dict(enumerate(map(_text, words))), "[UNK]"
        case list() if all(isinstance(word, str | bytes) for word in content):
            return dict(enumerate(map(_text, content))), next(
                (w for w in ("<unk>", "[UNK]", "unk") if w in content), None
            )
        case dict() if all(isinstance(k, str) and type(v) is int for k, v in content.items()):
            return {token: word for word, token in content.items()}, None
        case dict() if all(str(k).isdecimal() and isinstance(v, str) for k, v in content.items()):
            return {int(token): word for token, word in content.items()}, None
    raise TokenizerError(f"{path} holds a {type(content).__name__}, and no tokenizer, list of words or word index")


def _of_tokenizer(path: Path, fields: dict) -> tuple[dict[int, str], str | None]:
    """Keras' Tokenizer keeps all words it has seen; `num_words` says how many the model was trained with."""
    words = {token: word for word, token in fields["word_index"].items()}
    if not all(type(token) is int and isinstance(word, str) for token, word in words.items()):
        raise TokenizerError(f"{path}: its word_index does not lead from words to numbers")
    most = fields.get("num_words")
    return {token: word for token, word in words.items() if most is None or token < most}, fields.get("oov_token")


def _pair(path: Path, tokens: dict[str, int], start: str | None, end: str | None) -> tuple[str, str]:
    if start and end:
        missing = [word for word in (start, end) if word not in tokens]
        if missing:
            raise TokenizerError(f"{path} has no word {' and no word '.join(map(repr, missing))}")
        return start, end
    for pair in USUAL_PAIRS:
        if all(word in tokens for word in pair) and (start or pair[0], end or pair[1]) == pair:
            return pair
    raise TokenizerError(f"{path} has none of the usual start and end words: say --start and --end")


def _text(word: str | bytes) -> str:
    return word.decode() if isinstance(word, bytes) else word


# --- pickles --------------------------------------------------------------------------------------------------------


class Tokenizer:
    """Stands in for Keras' class: takes the attributes that the pickle sets, and does nothing."""


class _IntDefault(collections.defaultdict):
    """Keras' counters; made anew from whatever default the pickle names, and without it."""

    def __new__(cls, *_):
        return super().__new__(cls)

    def __init__(self, *_):
        super().__init__()


class _Int:
    """Stands in for `int` as a counter's default, which is never called."""


class _Type:
    """Stands in for NumPy's dtype: the letter and the width, as in U5."""

    def __init__(self, kind, *_):
        self.kind, self.order = kind, "<"

    def __setstate__(self, state):
        self.order = state[1]


def _scalar(kind, raw):
    """One of NumPy's strings, as `get_vocabulary` lists them."""
    if isinstance(kind, _Type) and kind.kind[:1] == "U":
        return raw.decode("utf-32-be" if kind.order == ">" else "utf-32-le").rstrip("\0")
    if isinstance(kind, _Type) and kind.kind[:1] == "S":
        return raw.rstrip(b"\0").decode()
    raise TokenizerError("it holds NumPy's numbers where words were expected")


class _Array(list):
    """Stands in for NumPy's array of objects: the list of them."""

    def __setstate__(self, state):
        if isinstance(state[-1], list):  # and of a table that is not of objects, nothing
            self.extend(state[-1])


class _Ndarray:
    """Stands in for the class that an array is to be made of."""


def _reconstruct(*_):
    return _Array()


KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): _IntDefault,
    ("builtins", "int"): _Int,
    ("__builtin__", "int"): _Int,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Ndarray,
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{
        (module, "Tokenizer"): Tokenizer
        for module in (
            "keras_preprocessing.text",
            "keras.preprocessing.text",
            "keras.src.preprocessing.text",
            "keras.src.legacy.preprocessing.text",
            "keras.legacy.preprocessing.text",
            "keras_preprocessing.text_dataset",
            "tensorflow.keras.preprocessing.text",
            "tensorflow.python.keras.preprocessing.text",
            "tf_keras.preprocessing.text",
            "tf_keras.src.preprocessing.text",
        )
    },
}


class Reader(pickle.Unpickler):
    """An unpickler that can make a tokenizer and nothing else."""

    def find_class(self, module: str, name: str):
        """The stand-in for a class. Raises TokenizerError for every other name."""
        try:
            return KNOWN[module, name]
        except KeyError:
            raise TokenizerError(f"it asks for {module}.{name}, which no tokenizer needs: it is not read") from None

    def persistent_load(self, _pid):
        raise TokenizerError("it refers to something outside of itself: it is not read")


def read_pickle(path: Path):
    """What a pickle holds, read without running it. Raises TokenizerError."""
    with path.open("rb") as file:
        try:
            return Reader(file, encoding="utf-8").load()
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from error
        except Exception as error:  # a damaged pickle may raise anything
            raise TokenizerError(f"{path} is no pickle that can be read: {type(error).__name__}: {error}") from error
