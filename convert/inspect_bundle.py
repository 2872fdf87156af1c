"""What a bundle holds, in one screen."""

import json
from pathlib import Path

import onnx

from convert.graphs import multiply_adds, operators, parameters
from function.bundles import Bundle, load_bundle

SHOWN = 8  # operators of a graph


def describe(folder: Path) -> str:
    """A bundle's tensors, sizes, operators, metrics and provenance, as text.

    Raises:
        BundleError: the runtime would not load it.
    """
    bundle = load_bundle(folder, threads=1)
    document = json.loads((folder / "bundle.json").read_text("utf-8"))
    total = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    width, height = bundle.image_size
    lines = [
        f"{bundle.name}: {total / 1e6:.1f} MB in {folder}, format {document['format']}",
        f"  photos   {width} x {height}, {document['image']['resize']}",
        f"  words    {len(bundle.vocabulary)}; {_tokens(bundle)}",
        f"  captions up to {bundle.longest_caption} words, {bundle.beams} beams, score over length^"
        f"{bundle.length_exponent:g}, decoder: {'whole prefix' if bundle.prefix else 'one step'}"
        f"{'' if bundle.confidence else ', not calibrated'}",
        *_graph(folder / "encoder.onnx", bundle.encoder),
        *_graph(folder / "decoder.onnx", bundle.decoder),
        "",
    ]
    for name in ("metrics", "provenance"):
        lines += [f"{name}:", *(f"  {key}: {_short(value)}" for key, value in document.get(name, {}).items())]
    if (folder / "parity.json").exists():
        parity = json.loads((folder / "parity.json").read_text("utf-8"))
        lines.append(f"parity: {parity['photos']} photos, {parity['other_captions']} captions differ: {parity['why']}")
    return "\n".join([*lines, f"licence: {_short(document.get('licence'))}"])


def _tokens(bundle: Bundle) -> str:
    named = {"pad": bundle.pad, "start": bundle.start, "end": bundle.end}
    return ", ".join(f"{name} {token} {bundle.vocabulary[token]!r}" for name, token in named.items())


def _graph(path: Path, session) -> list[str]:
    model = onnx.load(path)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    weights = ", ".join(
        f"{count / 1e6:.2f} M {kind} ({size / 1e6:.1f} MB)"
        for kind, (count, size) in sorted(parameters(model).items(), key=lambda item: -item[1][1])
        if count >= 1000  # the others are shapes and axes
    )
    common = operators(model).most_common()
    shown = ", ".join(f"{name} {count}" for name, count in common[:SHOWN])
    more = f" and {len(common) - SHOWN} more kinds" if len(common) > SHOWN else ""
    return [
        "",
        f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, opset {opset}, {multiply_adds(model) / 1e6:.1f} M "
        "multiply-adds for one",
        f"  weights   {weights}",
        f"  operators {shown}{more}",
        *(f"  in        {_tensor(tensor)}" for tensor in session.get_inputs()),
        *(f"  out       {_tensor(tensor)}" for tensor in session.get_outputs()),
    ]


def _tensor(tensor) -> str:
    return f"{tensor.name} {tensor.type} ({', '.join(str(axis or '?') for axis in tensor.shape)})"


def _short(value, most: int = 100) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return said if len(said) <= most else f"{said[: most - 1]}…"
