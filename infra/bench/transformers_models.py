"""What people pick instead, in PyTorch and transformers at their real sizes: ViT-GPT2 and BLIP-base.

Weights are random, the arithmetic is the same: greedy captions of as many words as the others say.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from infra.bench.subject import WORDS, measure


def load(name: str) -> Callable[[Path], str]:
    """The model `vit-gpt2` or `blip`."""
    import numpy as np
    import torch
    import transformers
    from PIL import Image

    torch.set_num_threads(1)
    settings = {"max_new_tokens": WORDS, "min_new_tokens": WORDS, "num_beams": 1, "do_sample": False}
    if name == "blip":
        side, model = 384, transformers.BlipForConditionalGeneration(transformers.BlipConfig())
    else:
        text = transformers.GPT2Config(is_decoder=True, add_cross_attention=True)
        both = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(transformers.ViTConfig(), text)
        side, model = 224, transformers.VisionEncoderDecoderModel(both)
        settings |= {"decoder_start_token_id": text.bos_token_id, "pad_token_id": text.eos_token_id}
    model.eval()

    def caption(path: Path) -> str:
        image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1)
        with torch.inference_mode():
            tokens = model.generate(pixel_values=pixels, **settings)
        return " ".join(map(str, tokens[0].tolist()))

    return caption


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    measure(lambda: load(kind))
