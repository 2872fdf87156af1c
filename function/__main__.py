"""Caption image files: one JSON line an image."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from function.bundles import BundleError
from function.captioner import as_json, load_captioner
from function.explain import draw, panel_size
from function.photos import UnreadablePhoto, read_photo

PROGRAM = "python -m function"
EPILOG = """\
{"path": "a.jpg", "caption": "a dog runs", "confidence": 0.61,
 "captions": [{"text": ..., "log_probability": ..., "confidence": ...}, ...],
 "model": ..., "milliseconds": ...} is what an image gives, best caption first; one that cannot be
captioned gives {"path": ..., "error": ...}, and the rest goes on. Exit status: 0 if every image has
its caption, 1 if some have not, 2 if there is no usable model or --explain could not draw.
"""


Looks = Callable[
    [], tuple[Sequence[str], NDArray[np.float32]]
]  # the words, and where each looked: (words, rows, columns)
Ask = Callable[[bytes], tuple[dict[str, Any], Looks]]  # of an image: the fields of its answer; raises NoCaption


FIELDS = ("caption", "confidence", "captions", "model")


class NoCaption(Exception):
    """There is none for this image; `str` of it is one line that says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, or - for standard input")
    parser.add_argument("--beams", type=_at_least_one, metavar="N", help="beams of the search (default: the model's)")
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="FOLDER",
        help="the model (default: $BUNDLE, or else the one that ships)",
    )
    parser.add_argument("--sentence", action="store_true", help="a capital first and a full stop last")
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="PICTURE",
        help="draw where the model looked for each word of the best caption; for one file",
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        help="ask the deployed API there, with your AWS credentials, or with the token in $CAPTIONS_TOKEN",
    )
    options = parser.parse_args(arguments)
    if options.explain and (len(options.images) > 1 or options.images == ["-"]):
        parser.error("argument --explain: one image only, and from a file")
    if options.url and (options.bundle or options.sentence):
        parser.error("argument --url: not with --bundle or --sentence, which are of a model here")
    try:
        ask = _ask_there(options) if options.url else _ask_here(options)
    except (BundleError, ValueError) as error:  # ValueError: of the URL
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    failed = False
    for path in options.images:
        answer, looks = _caption(path, ask)
        failed |= "error" in answer
        print(json.dumps({"path": path, **answer}), flush=True)
    if options.explain and not failed:
        return _explain(path, looks, options.explain)
    return 1 if failed else 0


def _ask_here(options: argparse.Namespace) -> Ask:
    """Asks a model on this machine. Raises BundleError."""
    captioner = load_captioner(options.bundle, options.sentence)

    def ask(data: bytes) -> tuple[dict[str, Any], Looks]:
        try:
            pixels = read_photo(data, captioner.image_size).pixels
        except UnreadablePhoto as error:
            raise NoCaption(str(error)) from error
        captions = captioner.caption(pixels[None], options.beams)[0]
        tokens = captions[0].tokens
        answer = {**as_json(captions), "model": captioner.name}
        return answer, lambda: (captioner.words(tokens), captioner.attention(pixels, tokens))

    return ask


def _ask_there(options: argparse.Namespace) -> Ask:
    """Asks a deployed API. Raises ValueError for no such URL."""
    from function.client import ApiError, Client  # here, since a model on this machine must not wait for this

    client = Client(options.url, os.environ.get("CAPTIONS_TOKEN"))

    def ask(data: bytes) -> tuple[dict[str, Any], Looks]:
        try:
            said = client.caption(data, options.beams, explain=options.explain is not None)
        except (ApiError, UnreadablePhoto) as error:
            raise NoCaption(str(error)) from error
        answer: dict[str, Any] = {name: said[name] for name in FIELDS if name in said}
        seen = said.get("attention", [])
        return answer, lambda: ([look["word"] for look in seen], np.array([look["weights"] for look in seen]))

    return ask


def _caption(path: str, ask: Ask) -> tuple[dict[str, Any], Looks]:
    """The answer for an image, or why there is none."""
    began = time.perf_counter()
    try:
        answer, looks = ask(sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes())
    except OSError as error:
        return {"error": error.strerror}, _nowhere
    except NoCaption as error:
        return {"error": str(error)}, _nowhere
    return {**answer, "milliseconds": round(1000 * (time.perf_counter() - began))}, looks


def _nowhere() -> tuple[Sequence[str], NDArray[np.float32]]:
    raise ValueError("there is no caption")


def _explain(path: str, looks: Looks, picture: Path) -> int:
    """Draw where the model looked in a photo for each word; return the exit status."""
    try:
        words, attention = looks()
        data = Path(path).read_bytes()
        whole = read_photo(data, (1, 1))
        panel = read_photo(data, panel_size(whole.width, whole.height))
        draw(panel.pixels, words, attention).save(picture)
    except (BundleError, OSError, ValueError) as error:  # ValueError: the file's name says no format
        print(f"{PROGRAM}: {picture}: {error}", file=sys.stderr)
        return 2
    return 0


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as a shell has it
    except BrokenPipeError:  # whoever read this has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush is quiet too
        sys.exit(141)  # 128 + SIGPIPE
