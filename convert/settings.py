"""What a stage of training can be told. Apart, so that `--help` need not wait for Keras."""

from dataclasses import dataclass

CHOICES = {
    "encoder": ("lite2", "xception"),
    "decoder": ("attention", "merge"),
    "depth": ("frozen", "tail", "full"),
    "reward": ("words", "cider"),
}


@dataclass(frozen=True)
class Settings:
    """Kept in a run's run.json and in the bundle made of it."""

    data: str
    encoder: str = "lite2"
    decoder: str = "attention"
    depth: str = "frozen"
    reward: str = "words"
    epochs: int = 10
    patience: int = 3
    photos_a_batch: int = 20
    learning_rate: float = 1e-3
    final_rate: float = 0.4
    encoder_rate: float = 0.1
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    average: float = 0.995
    views: int = 3
    samples: int = 5
    words_kept: float = 0.1
    minimum_count: int = 4
    longest: int = 18
    units: int = 512
    word_units: int = 384
    dropout: float = 0.3
    seed: int = 1


HELP = {
    "data": "a folder in Flickr8k's format",
    "encoder": "EfficientNet-Lite2 (small and fast) or Xception (the original)",
    "decoder": "attention over the grid, or the original's merge of a pooled vector and an LSTM",
    "depth": "what learns: the decoder, the encoder's last stages too, or everything",
    "reward": "the references' next words, or CIDEr-D of captions drawn from the model",
    "epochs": "at most so many; the learning rate falls over them",
    "patience": "stop after so many epochs without a better CIDEr on dev",
    "photos_a_batch": "with five captions each",
    "learning_rate": "of the decoder, at its highest",
    "final_rate": "the learning rate at the end, over its highest",
    "encoder_rate": "the encoder's learning rate over the decoder's",
    "weight_decay": "of the decoder's matrices (AdamW)",
    "label_smoothing": "probability spread over all words",
    "average": "how much of the weights' running average an update keeps",
    "views": "augmented views of each photo, beside the plain one",
    "samples": "captions drawn a photo, with --reward cider",
    "words_kept": "weight of cross-entropy beside the reward",
    "minimum_count": "words seen more rarely in train are unknown",
    "longest": "longest caption in words",
    "units": "of the LSTM and the attention",
    "word_units": "width of a word vector",
    "dropout": "at the features, the words, the state and the output",
    "seed": "of everything random",
}
