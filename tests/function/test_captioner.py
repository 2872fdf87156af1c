"""Beam search against a slow, plain one; then the captioner on a tiny bundle, against onnxruntime by hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from function.captioner import Captioner, Hypothesis, Step, beam_search, load_captioner, sentence
from tests.tiny_bundle import (
    END,
    PAD,
    SIZE,
    START,
    UNKNOWN,
    VOCABULARY,
    make_tiny_bundle,
    prefix_decoder,
    prefix_encoder,
    write_bundle,
)

Tokens = tuple[int, ...]
Model = Callable[[Tokens], list[float]]  # the tokens so far -> the log-probability of each next token


# -- two searches that are obviously right


def search_slowly(
    model: Model, beams: int, end: int, never: Sequence[int], longest: int, length_exponent: float
) -> list[Hypothesis]:
    """Beam search as its docstring tells it, one photo, lists only, to the longest caption every time."""
    live: list[tuple[Tokens, float]] = [((), 0.0)]
    finished: list[Hypothesis] = []
    unfinished = Hypothesis((), 0.0)
    for _ in range(longest + 1):
        continuations = [
            ((*tokens, token), total + log_prob)
            for tokens, total in live
            for token, log_prob in enumerate(model(tokens))
            if token not in never and log_prob > -np.inf
        ]
        kept = sorted(continuations, key=lambda c: c[1], reverse=True)[:beams]  # stable: ties to the first
        finished += [Hypothesis(tokens[:-1], total) for tokens, total in kept if tokens[-1] == end]
        live = [(tokens, total) for tokens, total in kept if tokens[-1] != end and len(tokens) <= longest]
        if live:
            unfinished = Hypothesis(*live[0])
    return best_first(finished, length_exponent)[:beams] or [unfinished]


def search_everything(
    model: Model, vocabulary: int, end: int, longest: int, length_exponent: float
) -> list[Hypothesis]:
    """Every caption that ends and is possible at all."""
    words = [token for token in range(vocabulary) if token != end]
    found = []
    for length in range(longest + 1):
        for tokens in itertools.product(words, repeat=length):
            steps = [model(tokens[:i])[token] for i, token in enumerate((*tokens, end))]
            if (total := sum(steps)) > -np.inf:
                found.append(Hypothesis(tokens, total))
    return best_first(found, length_exponent)


def best_first(found: list[Hypothesis], length_exponent: float) -> list[Hypothesis]:
    return sorted(
        found, key=lambda h: h.log_probability / float(len(h.tokens) + 1) ** length_exponent, reverse=True
    )


# -- toy decoders


def toy(seed: int, vocabulary: int, values: Sequence[float]) -> Model:
    """A decoder of arbitrary answers. Few different values make many ties; all are exact in binary."""

    def model(tokens: Tokens) -> list[float]:
        return random.Random(f"{seed} {tokens}").choices(values, k=vocabulary)

    return model


def step_of(models: Sequence[Model], beams: int, start: int) -> Step:
    """All photos' models as one step, which also sees that `parents` are what they should be."""
    before = np.zeros((len(models) * beams, 0), dtype=np.int64)

    def step(prefixes: np.ndarray, parents: np.ndarray) -> np.ndarray:
        nonlocal before
        assert np.array_equal(prefixes[:, :-1], before[parents])
        assert np.array_equal(parents // beams, np.arange(len(prefixes)) // beams)  # no photo reads another
        assert (prefixes[:, 0] == start).all()
        before = prefixes
        rows = [models[row // beams](tuple(tokens[1:])) for row, tokens in enumerate(prefixes.tolist())]
        return np.array(rows, dtype=np.float32)

    return step


def search(models: Sequence[Model], beams: int, **rules: object) -> list[list[Hypothesis]]:
    return beam_search(
        step_of(models, beams, start=1), photos=len(models), beams=beams, start=1, **{"never": [], **rules}
    )


TIES = (-0.5, -1.0)
LIVELY = (-0.25, -0.5, -1.0, -1.5, -2.0, -3.0, -5.0, -8.0)
DEAD_ENDS = (-0.5, -1.0, -2.0, -np.inf, -np.inf)


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 2**32),
    values=st.sampled_from([TIES, LIVELY, DEAD_ENDS, (-np.inf,)]),
    vocabulary=st.integers(2, 6),
    photos=st.integers(1, 4),
    beams=st.integers(1, 9),
    longest=st.integers(1, 6),
    length_exponent=st.sampled_from([0.0, 0.5, 0.7, 1.0, 2.0]),
    data=st.data(),
)
def test_finds_what_the_plain_search_finds(
    seed: int,
    values: Sequence[float],
    vocabulary: int,
    photos: int,
    beams: int,
    longest: int,
    length_exponent: float,
    data: st.DataObject,
) -> None:
    end = data.draw(st.integers(0, vocabulary - 1))
    never = data.draw(st.lists(st.sampled_from([t for t in range(vocabulary) if t != end])))
    models = [toy(seed + photo, vocabulary, values) for photo in range(photos)]
    together = search(models, beams, end=end, never=never, longest=longest, length_exponent=length_exponent)
    assert together == [search_slowly(model, beams, end, never, longest, length_exponent) for model in models]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    values=st.sampled_from([TIES, LIVELY, DEAD_ENDS]),
    vocabulary=st.integers(2, 4),
    longest=st.integers(1, 3),
    length_exponent=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_with_beams_for_every_caption_it_is_exhaustive(
    seed: int, values: Sequence[float], vocabulary: int, longest: int, length_exponent: float
) -> None:
    model = toy(seed, vocabulary, values)
    (found,) = search(
        [model], vocabulary ** (longest + 1), end=0, longest=longest, length_exponent=length_exponent
    )
    everything = search_everything(model, vocabulary, 0, longest, length_exponent)
    if everything:
        assert set(found) == set(everything)
        assert found == best_first(found, length_exponent)
    else:
        assert len(found) == 1


# -- the rules, one by one; token 0 ends


def always(*log_probs: float) -> Model:
    return lambda tokens: list(log_probs)


def test_one_beam_is_greedy() -> None:
    model = toy(5, 6, LIVELY)
    ((found,),) = search([model], 1, end=0, longest=9, length_exponent=1.0)
    tokens: Tokens = ()
    while (token := int(np.argmax(model(tokens)))) != 0:
        tokens += (token,)
    assert found.tokens == tokens


def test_ties_go_to_the_lower_index() -> None:
    (found,) = search([always(-9.0, -1.0, -1.0, -1.0)], 2, end=0, longest=1, length_exponent=1.0)
    assert [hypothesis.tokens for hypothesis in found] == [(1,)]  # of which no beam ended


def test_the_end_token_counts_in_sum_and_length() -> None:
    model: Model = lambda tokens: [-4.0, -9.0] if not tokens else [-1.0, -9.0]  # noqa: E731
    (found,) = search([model], 2, end=0, longest=1, length_exponent=1.0)
    assert found == [Hypothesis((), -4.0), Hypothesis((1,), -10.0)]  # -4 / 1 against -10 / 2


def test_a_higher_length_exponent_favours_longer_captions() -> None:
    model: Model = lambda tokens: [-3.0, -2.0] if not tokens else [-2.0, -9.0]  # noqa: E731
    plain, normalised = (search([model], 2, end=0, longest=3, length_exponent=e)[0][0] for e in (0.0, 1.0))
    assert (plain.tokens, normalised.tokens) == ((), (1,))


def test_if_no_beam_ends_the_best_unfinished_is_the_answer() -> None:
    (found,) = search([always(-np.inf, -2.0, -1.0)], 3, end=0, longest=4, length_exponent=1.0)
    assert found == [Hypothesis((2, 2, 2, 2), -4.0)]


def test_a_decoder_that_can_say_nothing_gives_the_empty_caption() -> None:
    (found,) = search([always(-np.inf, -np.inf)], 3, end=0, longest=4, length_exponent=1.0)
    assert found == [Hypothesis((), 0.0)]


def test_stops_as_soon_as_nothing_better_can_come() -> None:
    steps = []

    def step(prefixes: np.ndarray, parents: np.ndarray) -> np.ndarray:
        steps.append(prefixes.shape)
        return np.full((len(prefixes), 3), [-0.01, -5.0, -6.0])

    beam_search(step, photos=2, beams=2, start=1, end=0, never=[], longest=50, length_exponent=0.0)
    assert len(steps) == 2


def test_an_answer_that_is_no_number_is_an_error_and_no_caption() -> None:
    with pytest.raises(FloatingPointError, match="not numbers"):
        search([always(np.nan, -1.0)], 2, end=0, longest=4, length_exponent=1.0)


# -- sentences


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", "dog", "runs"], "a dog runs"),
        (["a", "dog", "'s", "ball"], "a dog's ball"),
        (["they", "do", "n't", "run"], "they don't run"),
        (["'s"], "'s"),
        ([], ""),
    ],
)
def test_words_are_joined_by_the_bundle_s_rules(words: list[str], text: str) -> None:
    assert sentence(words, frozenset({"'s", "n't"})) == text


# -- the captioner


@pytest.fixture(scope="module")
def step_captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return load_captioner(make_tiny_bundle(tmp_path_factory.mktemp("step")))


@pytest.fixture(scope="module")
def prefix_captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return load_captioner(make_tiny_bundle(tmp_path_factory.mktemp("prefix"), decoder="prefix"))


@pytest.fixture(params=["step_captioner", "prefix_captioner"])
def captioner(request: pytest.FixtureRequest) -> Captioner:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def photos(count: int) -> np.ndarray:
    """Photos of one colour each, (N, H, W, 3)."""
    colours = np.random.default_rng(1).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colours, (count, SIZE[1], SIZE[0], 3)).copy()


def by_hand(captioner: Captioner, photo: np.ndarray, tokens: Sequence[int]) -> list[float]:
    """The log-probabilities of what follows `tokens`, one photo and one token at a time."""
    bundle = captioner.bundle
    names = bundle.contexts + bundle.states
    feeds = dict(zip(names, bundle.encoder.run(names, {"image": photo[None]}), strict=True))
    if bundle.prefix:
        (log_probs,) = bundle.decoder.run(["log_probs"], {**feeds, "tokens": np.array([tokens])})
    else:
        for token in tokens:
            feeds["token"] = np.array([token])
            log_probs, feeds["state_h"] = bundle.decoder.run(["log_probs", "next_state_h"], feeds)
    return log_probs[0].tolist()  # type: ignore[no-any-return]


def test_captions_are_what_the_plain_search_finds_by_hand(captioner: Captioner) -> None:
    bundle = captioner.bundle
    rules = (END, bundle.never, bundle.longest_caption, bundle.length_exponent)
    for photo, captions in zip(photos(4), captioner.caption(photos(4), beams=4), strict=True):

        def model(tokens: Tokens, photo: np.ndarray = photo) -> list[float]:
            return by_hand(captioner, photo, [START, *tokens])

        plain = search_slowly(model, 4, *rules)
        assert [caption.tokens for caption in captions] == [hypothesis.tokens for hypothesis in plain]
        assert [caption.log_probability for caption in captions] == pytest.approx(
            [hypothesis.log_probability for hypothesis in plain], abs=1e-5
        )


def test_several_photos_at_once_get_the_captions_of_each_alone(captioner: Captioner) -> None:
    together = captioner.caption(photos(6))
    alone = [captioner.caption(photo[None])[0] for photo in photos(6)]
    assert [[c.text for c in captions] for captions in together] == [[c.text for c in a] for a in alone]


def test_captions_come_best_first_and_no_more_than_beams(captioner: Captioner) -> None:
    for captions in captioner.caption(photos(6), beams=5):
        scores = [caption.log_probability / (len(caption.tokens) + 1) for caption in captions]
        assert scores == sorted(scores, reverse=True)
        assert 1 <= len(captions) <= 5


def test_some_tokens_are_never_produced(captioner: Captioner) -> None:
    tokens = {t for captions in captioner.caption(photos(6), beams=9) for c in captions for t in c.tokens}
    assert tokens.isdisjoint({PAD, START, UNKNOWN, END})


def test_the_text_is_the_tokens_words(captioner: Captioner) -> None:
    for captions in captioner.caption(photos(3)):
        for caption in captions:
            words = [VOCABULARY[token] for token in caption.tokens]
            assert caption.text == " ".join(words).replace(" 's", "'s")


def test_no_photos_no_captions(captioner: Captioner) -> None:
    assert captioner.caption(photos(0)) == []


def test_refuses_less_than_one_beam(captioner: Captioner) -> None:
    with pytest.raises(ValueError, match="beams is 0"):
        captioner.caption(photos(1), beams=0)


def test_a_prefix_decoder_of_fixed_width_is_padded_on_the_left(
    prefix_captioner: Captioner, tmp_path: Path
) -> None:
    fixed = load_captioner(
        write_bundle(tmp_path, prefix_encoder(), prefix_decoder(width=7), decoder="prefix")
    )
    for free, padded in zip(prefix_captioner.caption(photos(4)), fixed.caption(photos(4)), strict=True):
        assert [caption.text for caption in free] == [caption.text for caption in padded]


def test_the_bundle_is_the_one_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLE", str(make_tiny_bundle(tmp_path, name="from the environment")))
    assert load_captioner().name == "from the environment"
