"""The report of an evaluation: one file that holds all it shows, and shows what it should."""

import base64
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from convert import report
from convert.__main__ import main
from convert.evaluate import Evaluation
from tests.tiny_bundle import make_tiny_bundle

VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would see: attributes of each tag, text without style, and whether all tags are closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.text.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def evaluation(names, captions=None, references=None, cider=None):
    return Evaluation(
        model="a & b",
        split="dev",
        beams=3,
        names=names,
        captions=captions or [f"caption {number}." for number in range(len(names))],
        references=references or [[f"reference {number} {i}." for i in range(5)] for number in range(len(names))],
        scores={"BLEU-1": 61.25, "CIDEr": 52.5},
        cider=np.arange(len(names), dtype=float) if cider is None else np.array(cider),
    )


@pytest.fixture
def read(tmp_path):
    def written(of):
        report.write(of, SAMPLES[0].parent, tmp_path / "out.html")
        return Page((tmp_path / "out.html").read_text("utf-8"))

    return written


def test_scores_and_every_photo_with_caption_references_and_score_are_there(read):
    page = read(evaluation([SAMPLES[0].name], cider=[12.34]))
    assert not page.open
    for text in ("a & b: 1 dev photos, beam 3", "BLEU-1", "61.2", "52.5", "caption 0.", "reference 0 0."):
        assert text in page.text
    assert "reference 0 4." in page.text
    assert any(text.startswith("CIDEr 12.3") for text in page.text)


def test_thirty_worst_come_first_then_thirty_around_the_median(read):
    numbers = list(np.random.default_rng(0).permutation(101))
    page = read(evaluation([SAMPLES[0].name] * 101, captions=[f"rank {n}." for n in numbers], cider=numbers))
    ranks = [text for text in page.text if text.startswith("rank")]
    assert ranks == [f"rank {n}." for n in [*range(30), *range(35, 65)]]


def test_photos_are_small_upright_and_inside_the_page(read):
    page = read(evaluation([path.name for path in SAMPLES]))
    images = page.all("img")
    assert len(images) == 2 * len(SAMPLES)
    assert all(image["alt"].startswith("reference") for image in images)
    for image in images:
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(BytesIO(base64.b64decode(data))) as thumbnail:
            assert max(thumbnail.size) <= report.THUMBNAIL
    assert not any("href" in attributes or tag in ("script", "link") for tag, attributes in page.tags)


def test_a_photo_on_its_side_is_brought_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "side.jpg", exif=exif)
    report.write(evaluation(["side.jpg"]), tmp_path, tmp_path / "out.html")
    data = Page((tmp_path / "out.html").read_text("utf-8")).all("img")[0]["src"].partition(",")[2]
    with Image.open(BytesIO(base64.b64decode(data))) as thumbnail:
        assert thumbnail.size == (40, 80)


def test_whatever_people_or_models_write_is_text_and_no_markup(read):
    evil = """<script>alert("1")</script> & 'x' {names}"""
    page = read(evaluation([SAMPLES[0].name], captions=[evil], references=[[evil]]))
    assert not page.all("script")
    assert not page.open
    assert page.text.count(evil) == 4  # caption and reference, among the worst and among the median
    assert page.all("img")[0]["alt"] == evil


def test_the_command_writes_it(flickr, tmp_path, capsys):
    bundle = make_tiny_bundle(tmp_path / "bundle")
    out = tmp_path / "out.html"
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(flickr), "--report", str(out)]) == 0
    assert "| CIDEr |" in capsys.readouterr().out
    page = Page(out.read_text("utf-8"))
    assert page.text[0] == page.text[1] == "tiny: 8 dev photos, beam 3"
    assert len(page.all("img")) == 16
