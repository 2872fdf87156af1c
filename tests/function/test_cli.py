"""`python -m function`: one JSON line an image; what fails is said, and the rest goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.terminal import listen_to_control_c
from tests.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"), seed=1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.effect_noise((64, 48), 50).save(path)
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "function", *map(str, arguments)]


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), input=stdin, capture_output=True, cwd=ROOT, timeout=60)


def lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_image_gives_one_json_line(bundle: Path, photo: Path) -> None:
    done = run("--bundle", bundle, photo)
    assert (done.returncode, done.stderr) == (0, b"")
    (answer,) = lines(done)
    assert list(answer) == ["path", "caption", "captions", "model", "milliseconds"]
    assert (answer["path"], answer["model"]) == (str(photo), "tiny")
    assert answer["caption"] == answer["captions"][0]["text"] != ""
    assert all(caption["log_probability"] < 0 for caption in answer["captions"])


def test_a_dash_is_standard_input(bundle: Path, photo: Path) -> None:
    from_file, from_stdin = lines(run("--bundle", bundle, photo, "-", stdin=photo.read_bytes()))
    assert from_stdin["path"] == "-"
    assert from_stdin["captions"] == from_file["captions"]


def test_beams_are_how_many_captions_there_can_be(bundle: Path, photo: Path) -> None:
    one, four = (lines(run("--bundle", bundle, "--beams", n, photo))[0]["captions"] for n in (1, 4))
    assert len(one) == 1 < len(four) <= 4


def test_what_fails_is_said_in_its_place_and_the_rest_goes_on(bundle: Path, photo: Path, tmp_path: Path) -> None:
    empty, text, cut = tmp_path / "empty.jpg", tmp_path / "text.jpg", tmp_path / "cut.jpg"
    empty.touch()
    text.write_text("no photo")
    cut.write_bytes(photo.read_bytes()[:-200])
    done = run("--bundle", bundle, tmp_path / "absent.jpg", tmp_path, empty, text, cut, photo)
    *failures, success = lines(done)
    assert (done.returncode, done.stderr) == (1, b"")
    assert [Path(failure["path"]).name for failure in failures[2:]] == ["empty.jpg", "text.jpg", "cut.jpg"]
    absent, folder, empty_, text_, cut_ = (failure["error"] for failure in failures)
    assert absent == "No such file or directory"
    assert folder == "Is a directory"
    assert empty_ == "the file is empty"
    assert text_.startswith("not a JPEG, PNG")
    assert cut_.startswith("the JPEG is damaged: image file is truncated")
    assert success["caption"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(bundle: Path, photo: Path) -> None:
    photo.chmod(0)
    assert lines(run("--bundle", bundle, photo))[0]["error"] == "Permission denied"


def test_a_broken_bundle_is_one_line_and_status_2(photo: Path, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    (bundle / "encoder.onnx").unlink()
    done = run("--bundle", bundle, photo)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"python -m function: {bundle}/encoder.onnx: No such file or directory\n"


@pytest.mark.parametrize("beams", ["0", "-1", "many"])
def test_beams_must_be_a_number_above_zero(photo: Path, beams: str) -> None:
    done = run("--beams", beams, photo)
    assert done.returncode == 2
    assert b"--beams" in done.stderr
    assert b"Traceback" not in done.stderr


def test_sentences_where_they_are_asked_for(bundle: Path, photo: Path) -> None:
    plain, written = (lines(run("--bundle", bundle, *flags, photo))[0] for flags in ([], ["--sentence"]))
    assert written["caption"] == f"{plain['caption'][0].upper()}{plain['caption'][1:]}."


def test_explain_draws_a_picture_and_prints_the_line_as_usual(bundle: Path, photo: Path, tmp_path: Path) -> None:
    done = run("--bundle", bundle, photo, "--explain", tmp_path / "out.png")
    assert (done.returncode, done.stderr) == (0, b"")
    (answer,) = lines(done)
    assert answer["captions"] == lines(run("--bundle", bundle, photo))[0]["captions"]
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")


def test_explain_takes_one_file(photo: Path, tmp_path: Path) -> None:
    for images in ([photo, photo], ["-"]):
        done = run(*images, "--explain", tmp_path / "out.png")
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.endswith(b"error: argument --explain: one image only, and from a file\n")


def test_a_photo_that_cannot_be_read_is_not_explained(bundle: Path, tmp_path: Path) -> None:
    done = run("--bundle", bundle, tmp_path / "absent.jpg", "--explain", tmp_path / "out.png")
    assert (done.returncode, done.stderr) == (1, b"")
    assert not (tmp_path / "out.png").exists()


def test_what_cannot_be_drawn_is_one_line_and_status_2(bundle: Path, photo: Path, tmp_path: Path) -> None:
    blind = make_tiny_bundle(tmp_path / "blind", decoder="prefix")
    for model, picture, reason in (
        (blind, "out.png", "has no attention"),
        (bundle, "out.abc", "unknown file extension"),
        (bundle, "nowhere/out.png", "No such file"),
    ):
        done = run("--bundle", model, photo, "--explain", tmp_path / picture)
        assert done.returncode == 2
        assert lines(done)[0]["caption"]
        assert done.stderr.startswith(f"python -m function: {tmp_path / picture}: ".encode())
        assert reason.encode() in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_help_tells_what_comes_out() -> None:
    done = run("--help")
    assert done.returncode == 0
    flags = (b"--beams", b"--bundle", b"--explain", b"--sentence", b"--url")
    for word in (*flags, b"standard input", b"log_probability", b"Exit status"):
        assert word in done.stdout


def waiting(bundle: Path, photo: Path) -> subprocess.Popen[bytes]:
    """The program after its first answer, waiting for standard input."""
    process = subprocess.Popen(
        command("--bundle", bundle, photo, "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=listen_to_control_c,
    )
    assert process.stdout
    assert json.loads(process.stdout.readline())["caption"]
    return process


def test_control_c_is_quiet(bundle: Path, photo: Path) -> None:
    with waiting(bundle, photo) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert process.stderr.read() == b""
    assert process.returncode == 130


def test_a_reader_that_has_read_enough_is_quiet(bundle: Path, photo: Path) -> None:
    with waiting(bundle, photo) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_nothing_is_kept_of_what_was_asked(bundle: Path, photo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    subprocess.run(command("--bundle", bundle, photo), cwd=ROOT, env=environment | {"HOME": str(home)}, check=True)
    assert list(home.iterdir()) == []  # where onnxruntime would keep what it reports
