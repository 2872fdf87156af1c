"""What a bundle says of the photos it does worst and middling on: one HTML file to read with one's own eyes.

It holds everything, photos too, so that it can be mailed or kept beside a run.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from convert.evaluate import Evaluation

SHOWN = 30  # captions of each kind
THUMBNAIL = 400  # the longer side, in pixels

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --quiet: color-mix(in srgb, CanvasText 65%, Canvas);
  --line: color-mix(in srgb, CanvasText 18%, Canvas); }}
body {{ max-width: 76rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }}
h1, h2 {{ line-height: 1.2; }}
h2 {{ margin-top: 3rem; }}
.scores {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }}
.photos {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 2rem;
  padding: 0; list-style: none; }}
figure {{ margin: 0; }}
img {{ display: block; width: 100%; height: 16rem; object-fit: contain; background: var(--line); }}
figcaption p {{ margin: .6rem 0 0; font-size: 1.125rem; font-weight: 600; }}
figcaption small, figcaption ul {{ color: var(--quiet); }}
figcaption ul {{ margin: .4rem 0 0; padding-left: 1.2rem; font-size: .9rem; }}
</style>
<main>
<h1>{title}</h1>
{body}
</main>
</html>
"""


def page(title: str, body: str) -> str:
    """A whole HTML page; `title` is text, `body` HTML."""
    return _PAGE.format(title=escape(title), body=body)


def table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of text as HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="scores"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n</table></div>'


def write(evaluation: Evaluation, images: Path, out: Path) -> None:
    """Write the report on an evaluation of photos in the folder `images`: scores, then the worst and median captions.

    Raises:
        OSError: a photo cannot be read, or `out` not written.
    """
    worst_first = np.argsort(evaluation.cider, kind="stable")
    middle = max(0, (len(worst_first) - SHOWN) // 2)
    scores = evaluation.scores
    sections = [
        "<p>Scores are &times;100, CIDEr's of one photo too. Below each photo: the caption, its score, and what people "
        "wrote.</p>",
        table(scores, [[f"{value:.1f}" for value in scores.values()]]),
        _section("worst", "Worst", worst_first[:SHOWN], evaluation, images),
        _section("median", "Median", worst_first[middle : middle + SHOWN], evaluation, images),
    ]
    title = f"{evaluation.model}: {len(evaluation.names)} {evaluation.split} photos, beam {evaluation.beams}"
    out.write_text(page(title, "\n".join(sections)), "utf-8")


def _section(anchor: str, kind: str, photos: Sequence[int], evaluation: Evaluation, images: Path) -> str:
    items = "\n".join(_photo(photo, evaluation, images) for photo in photos)
    heading = f'<h2 id="{anchor}">{kind} {len(photos)} captions by CIDEr</h2>'
    return f'<section aria-labelledby="{anchor}">\n{heading}\n<ol class="photos">\n{items}\n</ol>\n</section>'


def _photo(photo: int, evaluation: Evaluation, images: Path) -> str:
    """One photo as an item of a list; its first reference, a person's description, is its alternative text."""
    name, references = evaluation.names[photo], evaluation.references[photo]
    said = "".join(f"<li>{escape(reference)}</li>" for reference in references)
    return (
        f'<li><figure><img src="{_thumbnail(images / name)}" alt="{escape(references[0])}">'
        f"<figcaption><p>{escape(evaluation.captions[photo])}</p>"
        f"<small>CIDEr {evaluation.cider[photo]:.1f} · {escape(name)}</small><ul>{said}</ul></figcaption></figure></li>"
    )


def _thumbnail(path: Path) -> str:
    """A photo as the data URL of a small, upright JPEG."""
    with Image.open(path) as image:
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
