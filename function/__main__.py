"""Caption image files: one JSON line an image."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from function.bundles import BundleError
from function.captioner import Captioner, as_json, load_captioner
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
    options = parser.parse_args(arguments)
    if options.explain and (len(options.images) > 1 or options.images == ["-"]):
        parser.error("argument --explain: one image only, and from a file")
    try:
        captioner = load_captioner(options.bundle, options.sentence)
    except BundleError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    failed = False
    for path in options.images:
        answer, tokens = _caption(path, captioner, options.beams)
        failed |= "error" in answer
        print(json.dumps({"path": path, **answer}), flush=True)
    if options.explain and not failed:
        return _explain(path, captioner, tokens, options.explain)
    return 1 if failed else 0


def _caption(path: str, captioner: Captioner, beams: int | None) -> tuple[dict[str, object], Sequence[int]]:
    """The answer for an image, and the tokens of its best caption."""
    began = time.perf_counter()
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        photo = read_photo(data, captioner.image_size)
    except OSError as error:
        return {"error": error.strerror}, ()
    except UnreadablePhoto as error:
        return {"error": str(error)}, ()
    captions = captioner.caption(photo.pixels[None], beams)[0]
    answer = {
        **as_json(captions),
        "model": captioner.name,
        "milliseconds": round(1000 * (time.perf_counter() - began)),
    }
    return answer, captions[0].tokens


def _explain(path: str, captioner: Captioner, tokens: Sequence[int], picture: Path) -> int:
    """Draw where the model looked in a photo as it said `tokens`; return the exit status."""
    try:
        data = Path(path).read_bytes()
        photo = read_photo(data, captioner.image_size)
        attention = captioner.attention(photo.pixels, tokens)
        panel = read_photo(data, panel_size(photo.width, photo.height))
        draw(panel.pixels, captioner.words(tokens), attention).save(picture)
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
