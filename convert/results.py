"""What each stage brought and what it cost, from the logs of runs."""

import json
from pathlib import Path


def table(runs: list[Path]) -> str:
    """A Markdown table, a line a run: its best epoch's CIDEr on dev (greedy captions, x100) and its minutes.

    Raises:
        FileNotFoundError: one is no run.
    """
    lines = [
        "| stage | learns | from | dev CIDEr, greedy | words | best of epochs | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        asked = json.loads((run / "run.json").read_text())
        settings = asked["settings"]
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        best = max(log, key=lambda line: line["cider"])
        learns = {"frozen": "the decoder", "tail": "the encoder's tail too", "full": "everything"}[settings["depth"]]
        reward = {"words": "the references' words", "cider": "CIDEr-D of drawn captions"}[settings["reward"]]
        if not settings["epochs"]:
            learns, reward = "nothing", "average of " + ", ".join(Path(start).name for start in asked["start"])
        minutes = sum(line.get("seconds", 0) for line in log) / 60
        lines.append(
            f"| {run.name} | {learns} | {reward} | {best['cider']:.1f} | {best['length']:.1f} | "
            f"{best['epoch']} of {log[-1]['epoch']} | {minutes:.0f} |"
        )
    return "\n".join(lines)
