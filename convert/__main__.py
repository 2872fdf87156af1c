"""`python -m convert`: from photos with captions to a bundle."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _parser() -> argparse.ArgumentParser:
    from convert.train import DEPTHS, REWARDS, Settings

    parser = argparse.ArgumentParser("convert", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a stage", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    train.add_argument("--out", type=Path, required=True, help="the run's folder")
    train.add_argument("--from", dest="start", type=Path, help="begin with the best weights of this run")
    train.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    train.add_argument("--cache", type=Path, default=Path(".cache"), help="where arrays are kept")
    choices = {"encoder": ("lite2", "xception"), "depth": DEPTHS, "reward": REWARDS}
    for name, field in Settings.__dataclass_fields__.items():
        flag = "--" + name.replace("_", "-")
        if name == "data":
            train.add_argument(flag, required=True, help="a folder in Flickr8k's format")
        else:
            train.add_argument(flag, type=field.type, default=field.default, choices=choices.get(name), help=" ")
    return parser


def main() -> int:
    options = vars(_parser().parse_args())
    command = options.pop("command")
    if command == "train":
        from convert.train import Settings, train

        paths = {name: options.pop(name) for name in ("out", "cache", "start", "resume")}
        best = train(Settings(**options), **paths)
        print(f"best: epoch {best['epoch']}, dev CIDEr {best['cider']} (greedy)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
