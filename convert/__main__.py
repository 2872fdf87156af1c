"""`python -m convert`: from photos with captions to a bundle that `function/` runs."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow takes seconds to import, so each command imports what it needs, when it is asked for.


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 the bundle differs, 2 the input is at fault."""
    parser = argparse.ArgumentParser("python -m convert", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for add in ADD:
        add(commands)
    options = vars(parser.parse_args(arguments))
    del options["command"]
    run: Callable[..., int] = options.pop("run")

    from convert.data import DataError
    from convert.weights import WeightsError
    from function.bundles import BundleError
    from function.photos import UnreadablePhoto

    try:
        return run(**options)
    except (DataError, WeightsError, BundleError, UnreadablePhoto, FileNotFoundError, ValueError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("convert: stopped; `train --resume` goes on from the last whole epoch", file=sys.stderr)
        return 130


def _command(commands, name: str, run: Callable[..., int], summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _add_train(commands) -> None:
    from convert.settings import CHOICES, HELP, Settings

    parser = _command(commands, "train", _train, "train a stage; see convert/train.py for what a stage is")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--from", dest="start", type=Path, nargs="+", metavar="RUN", help=_FROM)
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where photos and features are kept")
    for name, field in Settings.__dataclass_fields__.items():
        flag, about = "--" + name.replace("_", "-"), {"help": HELP[name], "choices": CHOICES.get(name)}
        if name == "data":
            parser.add_argument(flag, required=True, **about)
        else:
            parser.add_argument(flag, type=field.type, default=field.default, **about)


_FROM = "begin with the best weights of this run or bundle; of several, with their average"


def _train(out: Path, start: list[Path] | None, resume: bool, cache: Path, **settings) -> int:
    from convert.settings import Settings
    from convert.train import train

    best = train(Settings(**settings), out, cache, start, resume)
    print(f"best: epoch {best['epoch']}, dev CIDEr {best['cider']} (greedy)")
    return 0


def _add_export(commands) -> None:
    parser = _command(commands, "export", _export, "make a bundle of a run, or of a Keras captioner of your own")
    parser.add_argument(
        "--model", type=Path, required=True, help="a run's folder, or a .keras, .h5 or .json file, or a SavedModel"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument("--name", help="the model's name, as records will say it (default: a file's own)")
    run = parser.add_argument_group("of a run")
    run.add_argument("--data", type=Path, help="a folder in Flickr8k's format, whose dev photos are compared")
    run.add_argument("--beams", type=int, default=3, help="beams that the bundle asks for")
    run.add_argument("--length-exponent", type=float, default=1.0, help="a caption's score is over length to this")
    run.add_argument("--photos", type=int, default=200, help="how many photos are compared")
    own = parser.add_argument_group("of a Keras captioner")
    own.add_argument("--tokenizer", type=Path, help="its Tokenizer, pickled or as JSON, or its words, a line each")
    own.add_argument("--weights", type=Path, help="its weights, where --model is an architecture (.json)")
    own.add_argument("--encoder", default="xception", help="where its features come from: a name, or a Keras model")
    own.add_argument("--encoder-weights", default="imagenet", help="a file with the encoder's weights")
    own.add_argument("--start", help="the word that begins a caption (default: guessed from the usual ones)")
    own.add_argument("--end", help="the word that ends one")
    own.add_argument("--images", type=Path, default=Path("events/photos"), help="a folder of photos to compare on")
    own.add_argument("--opset", type=int, default=18, choices=range(13, 19), help="ONNX's version")
    _add_smaller(own)


def _add_smaller(parser, required: bool = False) -> None:
    smaller = parser.add_mutually_exclusive_group(required=required)
    smaller.add_argument("--float16", action="store_true", help="store weights as float16, and measure what that costs")
    smaller.add_argument("--int8", type=Path, metavar="PHOTOS", help="int8, calibrated on these photos, and its cost")


def _export(model: Path, out: Path, name: str | None, photos: int, **options) -> int:
    if options["tokenizer"]:
        return _export_foreign(model, out, name or model.stem, photos, **options)
    if not (model / "run.json").exists():
        raise ValueError(f"{model} is no run; a Keras captioner needs its --tokenizer")
    if not options["data"] or not name:
        raise ValueError("a run is exported with --data and --name")
    from convert.export import export

    trained = export(model, out, name, options["beams"], options["length_exponent"])
    _say_size(out)
    return _report_parity(trained, out, options["data"], photos)


def _export_foreign(model: Path, out: Path, name: str, photos: int, **options) -> int:
    from convert.applications import build_vision
    from convert.foreign import recognise
    from convert.foreign_bundle import export_foreign
    from convert.keras_files import load_model
    from convert.tokenizers import read_tokenizer

    words = read_tokenizer(options["tokenizer"], options["start"], options["end"])
    print(f"{options['tokenizer']}: {words}")
    captioner = recognise(load_model(model, options["weights"]))
    vision = build_vision(options["encoder"], captioner.features, options["encoder_weights"])
    seen = _pixels(options["images"], vision.size, photos)
    smaller = _smaller(options["float16"], options["int8"], ("encoder.onnx", "decoder.onnx"), vision.size)
    report = export_foreign(captioner, vision, words, seen, out, name, options["opset"], smaller)
    _say_size(out)
    print(report)
    return 0


def _pixels(folder: Path, size: tuple[int, int], most: int) -> list:
    """The first photos of a folder, as an encoder reads them."""
    from function.photos import read_photo

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [read_photo(path.read_bytes(), size).pixels for path in paths[:most]]


def _smaller(
    float16: bool, int8: Path | None, parts: Sequence[str], size: tuple[int, int], name: str | None = None
) -> Callable | None:
    """What makes a bundle smaller, (source, out), as it was asked for; None if it was not."""
    from convert.quantise import quantise, store_in_half

    if float16:
        return lambda source, out: store_in_half(source, out, name)
    if int8:
        photos = _pixels(int8, size, CALIBRATION)
        return lambda source, out: quantise(source, out, photos, parts, name)
    return None


CALIBRATION = 200  # photos


def _add_quantise(commands) -> None:
    parser = _command(commands, "quantise", _quantise, "make a bundle's weights smaller, and measure what that costs")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the smaller bundle's folder")
    parser.add_argument("--images", type=Path, default=Path("events/photos"), help="a folder of photos to compare on")
    parser.add_argument("--photos", type=int, default=100, help="how many photos are compared")
    parser.add_argument("--name", help="the smaller model's name (default: the same)")
    parser.add_argument("--part", choices=("encoder", "decoder", "both"), default="both", help="what becomes int8")
    _add_smaller(parser, required=True)


def _quantise(bundle: Path, out: Path, name: str | None, part: str, images: Path, photos: int, **options) -> int:
    from convert.quantise import measure
    from function.bundles import load_bundle

    size = load_bundle(bundle).image_size
    parts = [f"{which}.onnx" for which in ("encoder", "decoder") if part in (which, "both")]
    _smaller(options["float16"], options["int8"], parts, size, name)(bundle, out)
    print(measure(bundle, out, _pixels(images, size, photos)))
    return 0


def _add_inspect(commands) -> None:
    parser = _command(commands, "inspect", _inspect, "what a bundle holds: tensors, sizes, operators, metrics")
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("function/bundle"), help="the bundle's folder")


def _inspect(bundle: Path) -> int:
    from convert.inspect_bundle import describe

    print(describe(bundle))
    return 0


def _say_size(bundle: Path) -> None:
    size = sum(file.stat().st_size for file in bundle.iterdir())
    print(f"{bundle}: {size / 1e6:.1f} MB")


def _add_parity(commands) -> None:
    parser = _command(commands, "parity", _parity, "compare a bundle with the run that it was made of")
    parser.add_argument("--model", type=Path, required=True, metavar="RUN", help="the run's folder")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--data", type=Path, required=True, help="a folder in Flickr8k's format")
    parser.add_argument("--photos", type=int, default=200, help="how many dev photos are compared")


def _parity(model: Path, bundle: Path, data: Path, photos: int) -> int:
    from convert.export import load_run

    return _report_parity(load_run(model), bundle, data, photos)


def _report_parity(trained, bundle: Path, folder: Path, photos: int) -> int:
    from convert.data import read_captions
    from convert.parity import compare
    from function.photos import read_photo

    names = read_captions(folder, "dev").names[:photos]
    size = trained.encoder.size
    parity = compare(
        trained, bundle, (read_photo((folder / "images" / name).read_bytes(), size).pixels for name in names)
    )
    print(parity)
    return 0 if parity.passed else 1


def _add_evaluate(commands) -> None:
    parser = _command(commands, "evaluate", _evaluate, "caption a split with the shipped runtime, and score it")
    parser.add_argument("--bundle", type=Path, default=Path("function/bundle"), help="the bundle's folder")
    parser.add_argument("--data", type=Path, required=True, help="a folder in Flickr8k's format")
    parser.add_argument("--split", default="dev", choices=("train", "dev", "test"), help="which photos")
    parser.add_argument("--beams", type=int, help="beams (default: what the bundle asks for)")
    parser.add_argument("--photos", type=int, help="only the first so many (default: all)")
    parser.add_argument("--at-once", type=int, default=16, help="photos that are captioned together (16)")
    parser.add_argument("--keep", action="store_true", help="note the scores in the bundle's metrics")
    parser.add_argument("--report", type=Path, metavar="HTML", help="write the worst and median captions, with photos")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write captions and scores, for `compare`")


def _evaluate(
    bundle: Path,
    data: Path,
    split: str,
    beams: int | None,
    photos: int | None,
    at_once: int,
    keep: bool,
    report: Path | None,
    out: Path | None,
) -> int:
    from convert.evaluate import evaluate, keep_metrics, save, table
    from convert.report import write

    evaluation = evaluate(bundle, data, split, beams, photos, at_once)
    print(table(evaluation))
    if keep:
        keep_metrics(bundle, evaluation)
    if report:
        write(evaluation, data / "images", report)
    if out:
        save(evaluation, out)
    return 0


def _add_compare(commands) -> None:
    parser = _command(commands, "compare", _compare, "is one evaluation better than another, by a paired bootstrap")
    parser.add_argument("before", type=Path, metavar="JSON", help="what `evaluate --out` wrote")
    parser.add_argument("after", type=Path, metavar="JSON", help="the same of another bundle, or of other beams")


def _compare(before: Path, after: Path) -> int:
    from convert.evaluate import compare

    print(compare(before, after))
    return 0


def _add_calibrate(commands) -> None:
    parser = _command(commands, "calibrate", _calibrate, "teach a bundle how far its captions can be believed")
    parser.add_argument("--bundle", type=Path, default=Path("function/bundle"), help="the bundle's folder")
    parser.add_argument("--data", type=Path, required=True, help="a folder in Flickr8k's format")
    parser.add_argument("--photos", type=int, help="only the first so many of a split (default: all)")
    parser.add_argument("--diagram", type=Path, metavar="SVG", help="draw what was said against what was so")


def _calibrate(bundle: Path, data: Path, photos: int | None, diagram: Path | None) -> int:
    from convert.confidence import calibrate, draw

    calibration = calibrate(bundle, data, photos)
    print(calibration)
    if diagram:
        diagram.write_text(draw(calibration), "utf-8")
    return 0


def _add_results(commands) -> None:
    parser = _command(commands, "results", _results, "what each stage brought and cost, from the logs of runs")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder")


def _results(runs: list[Path]) -> int:
    from convert.results import table

    print(table(runs))
    return 0


ADD = (
    _add_train,
    _add_export,
    _add_inspect,
    _add_quantise,
    _add_parity,
    _add_evaluate,
    _add_compare,
    _add_calibrate,
    _add_results,
)

if __name__ == "__main__":
    sys.exit(main())
