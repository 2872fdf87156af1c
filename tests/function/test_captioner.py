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
from onnx import helper

from function.bundles import BundleError
from function.captioner import Captioner, Hypothesis, Step, beam_search, load_captioner
from function.sentences import flawed
from tests.tiny_bundle import (
    END,
    PAD,
    SIZE,
    START,
    UNKNOWN,
    VOCABULARY,
    encoder,
    make_tiny_bundle,
    prefix_decoder,
    prefix_encoder,
    step_decoder,
    write_bundle,
)

Tokens = tuple[int, ...]
Model = Callable[[Tokens], list[float]]  # the tokens so far -> the log-probability of each next token
Flawed = Callable[[Sequence[int]], bool]


def sound(tokens: Sequence[int]) -> bool:
    """No caption is flawed."""
    return False


# -- two searches that are obviously right


def search_slowly(
    model: Model,
    beams: int,
    end: int,
    never: Sequence[int],
    longest: int,
    length_exponent: float,
    flawed: Flawed = sound,
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
    ranked = sorted(best_first(finished, length_exponent), key=lambda h: flawed(h.tokens))
    return ranked[:beams] or [unfinished]


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
    return sorted(found, key=lambda h: h.log_probability / float(len(h.tokens) + 1) ** length_exponent, reverse=True)


# -- toy decoders


def toy(seed: int, vocabulary: int, values: Sequence[float]) -> Model:
    """A decoder of arbitrary answers. Few different values make many ties; all are exact in binary."""

    def model(tokens: Tokens) -> list[float]:
        return random.Random(f"{seed} {tokens}").choices(values, k=vocabulary)

    return model


def step_of(models: Sequence[Model], beams: int, start: int) -> Step:
    """All photos' models as one step, which also sees that `parents` are what they should be."""
    before = np.zeros((len(models), 0), dtype=np.int64)
    photos = np.arange(len(models))  # of the rows before

    def step(prefixes: np.ndarray, parents: np.ndarray) -> np.ndarray:
        nonlocal before, photos
        assert np.array_equal(prefixes[:, :-1], before[parents])
        assert (prefixes[:, 0] == start).all()
        before, photos = prefixes, photos[parents]
        assert 1 <= len(prefixes) <= len(models) * beams
        assert np.unique(photos, return_counts=True)[1].max() <= beams
        assert (np.diff(photos) >= 0).all()  # a photo's beams stay together
        rows = [models[photo](tuple(tokens[1:])) for photo, tokens in zip(photos, prefixes.tolist(), strict=True)]
        return np.array(rows, dtype=np.float32)

    return step


def search(models: Sequence[Model], beams: int, **rules: object) -> list[list[Hypothesis]]:
    rules = {"never": [], "flawed": sound, **rules}
    return beam_search(step_of(models, beams, start=1), photos=len(models), beams=beams, start=1, **rules)


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
    flawed=st.sampled_from([sound, lambda tokens: sum(tokens) % 2 == 1, lambda tokens: len(tokens) != 3, bool]),
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
    flawed: Flawed,
    data: st.DataObject,
) -> None:
    end = data.draw(st.integers(0, vocabulary - 1))
    never = data.draw(st.lists(st.sampled_from([t for t in range(vocabulary) if t != end])))
    models = [toy(seed + photo, vocabulary, values) for photo in range(photos)]
    rules = {"end": end, "never": never, "longest": longest, "length_exponent": length_exponent, "flawed": flawed}
    assert search(models, beams, **rules) == [search_slowly(model, beams, **rules) for model in models]


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
    (found,) = search([model], vocabulary ** (longest + 1), end=0, longest=longest, length_exponent=length_exponent)
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

    rules = {"start": 1, "end": 0, "never": [], "longest": 50, "length_exponent": 0.0}
    beam_search(step, photos=2, beams=2, flawed=sound, **rules)
    assert len(steps) == 2


def test_beams_that_have_ended_are_not_asked_for_again() -> None:
    rows = []
    both = step_of([always(-0.01, -5.0, -6.0), always(-np.inf, -1.0, -2.0)], beams=2, start=1)

    def step(prefixes: np.ndarray, parents: np.ndarray) -> np.ndarray:
        rows.append(len(prefixes))
        return both(prefixes, parents)

    rules = {"start": 1, "end": 0, "never": [], "longest": 4, "length_exponent": 0.0}
    beam_search(step, photos=2, beams=2, flawed=sound, **rules)
    assert rows == [1 + 1, 1 + 2, 0 + 2, 0 + 2, 0 + 2]


def test_a_flawed_caption_comes_after_all_that_are_not() -> None:
    rules = {"end": 0, "longest": 3, "length_exponent": 1.0}
    model = always(-1.0, -9.0, -2.0)
    (plain,) = search([model], 3, **rules)
    (clean,) = search([model], 3, flawed=lambda tokens: not tokens, **rules)
    assert plain[0].tokens == ()
    assert [h.tokens for h in clean] == [(2,), (2, 2), (2, 2, 2)]
    (one_left,) = search([model], 3, flawed=lambda tokens: len(tokens) != 2, **rules)
    assert [h.tokens for h in one_left] == [(2, 2), (), (2,)]


def test_the_search_goes_on_until_one_is_found_that_is_not_flawed() -> None:
    rules = {"end": 0, "longest": 9, "length_exponent": 0.0}
    (plain,) = search([always(-0.1, -9.0, -3.0)], 1, **rules)
    (clean,) = search([always(-0.1, -9.0, -3.0)], 2, flawed=lambda tokens: len(tokens) < 5, **rules)
    assert plain[0].tokens == ()
    assert clean[0].tokens == (2, 2, 2, 2, 2)


def test_if_all_are_flawed_the_best_stays_the_best() -> None:
    model = toy(5, 6, LIVELY)
    rules = {"end": 0, "longest": 4, "length_exponent": 1.0}
    assert search([model], 3, flawed=lambda tokens: True, **rules)[0] == search_slowly(model, 3, never=[], **rules)


def test_an_answer_that_is_no_number_is_an_error_and_no_caption() -> None:
    with pytest.raises(FloatingPointError, match="not numbers"):
        search([always(np.nan, -1.0)], 2, end=0, longest=4, length_exponent=1.0)


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

        def bad(tokens: Sequence[int]) -> bool:
            return flawed([VOCABULARY[token] for token in tokens], bundle.never_last)

        plain = search_slowly(model, 4, *rules, flawed=bad)
        assert [caption.tokens for caption in captions] == [hypothesis.tokens for hypothesis in plain]
        assert [caption.log_probability for caption in captions] == pytest.approx(
            [hypothesis.log_probability for hypothesis in plain], abs=1e-5
        )


def test_several_photos_at_once_get_the_captions_of_each_alone(captioner: Captioner) -> None:
    together = captioner.caption(photos(6))
    alone = [captioner.caption(photo[None])[0] for photo in photos(6)]
    assert [[c.text for c in captions] for captions in together] == [[c.text for c in a] for a in alone]


def test_what_the_encoder_says_may_all_be_states(step_captioner: Captioner, tmp_path: Path) -> None:
    before, after = encoder(), step_decoder()
    before.graph.node.append(helper.make_node("Identity", ["context_colour"], ["state_colour"]))
    (colour,) = (tensor for tensor in before.graph.output if tensor.name == "context_colour")
    colour.name = "state_colour"
    (colour,) = (tensor for tensor in after.graph.input if tensor.name == "context_colour")
    colour.name = "state_colour"
    for name in ("context_colour", "next_state_colour"):
        after.graph.node.insert(0, helper.make_node("Identity", ["state_colour"], [name]))
    carried = after.graph.output.add()
    carried.CopyFrom(colour)
    carried.name = "next_state_colour"
    captioner = load_captioner(write_bundle(tmp_path, before, after))
    assert captioner.bundle.contexts == []
    assert captioner.caption(photos(4)) == step_captioner.caption(photos(4))
    tokens = captioner.caption(photos(1))[0][0].tokens
    assert np.array_equal(captioner.attention(photos(1)[0], tokens), step_captioner.attention(photos(1)[0], tokens))


def test_captions_come_best_first_and_no_more_than_beams(captioner: Captioner) -> None:
    for captions in captioner.caption(photos(6), beams=5):
        ranks = [
            (flawed(captioner.words(c.tokens), frozenset()), -c.log_probability / (len(c.tokens) + 1)) for c in captions
        ]
        assert ranks == sorted(ranks)
        assert 1 <= len(captions) <= 5


def test_some_tokens_are_never_produced(captioner: Captioner) -> None:
    tokens = {t for captions in captioner.caption(photos(6), beams=9) for c in captions for t in c.tokens}
    assert tokens.isdisjoint({PAD, START, UNKNOWN, END})


def test_the_text_is_the_tokens_words(captioner: Captioner) -> None:
    for captions in captioner.caption(photos(3)):
        for caption in captions:
            words = [VOCABULARY[token] for token in caption.tokens]
            assert caption.text == " ".join(words).replace(" 's", "'s")


def test_a_sentence_has_a_capital_and_a_full_stop_where_they_are_asked_for(captioner: Captioner) -> None:
    for plain, written in zip(
        captioner.caption(photos(3)), Captioner(captioner.bundle, sentence_case=True).caption(photos(3)), strict=True
    ):
        assert [c.text for c in written] == [f"{c.text[0].upper()}{c.text[1:]}." for c in plain]
        assert [c.tokens for c in written] == [c.tokens for c in plain]


def test_captions_that_end_in_a_word_which_ends_none_come_last(tmp_path: Path) -> None:
    plain = load_captioner(make_tiny_bundle(tmp_path / "plain"))
    better = 0
    for photo in photos(6):
        last = plain.caption(photo[None])[0][0].text.split()[-1]
        strict = load_captioner(make_tiny_bundle(tmp_path / last, sentence={"never_last": [last]}))
        dangling = [caption.text.split()[-1] == last for caption in strict.caption(photo[None], beams=5)[0]]
        assert dangling == sorted(dangling)
        better += not dangling[0]
    assert better


def test_no_photos_no_captions(captioner: Captioner) -> None:
    assert captioner.caption(photos(0)) == []


def test_refuses_less_than_one_beam(captioner: Captioner) -> None:
    with pytest.raises(ValueError, match="beams is 0"):
        captioner.caption(photos(1), beams=0)


def test_a_prefix_decoder_of_fixed_width_is_padded_on_the_left(prefix_captioner: Captioner, tmp_path: Path) -> None:
    fixed = load_captioner(write_bundle(tmp_path, prefix_encoder(), prefix_decoder(width=7), decoder="prefix"))
    for free, padded in zip(prefix_captioner.caption(photos(4)), fixed.caption(photos(4)), strict=True):
        assert [caption.text for caption in free] == [caption.text for caption in padded]


def test_the_bundle_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLE", str(make_tiny_bundle(tmp_path, name="from the environment")))
    assert load_captioner().name == "from the environment"


# -- attention


def test_attention_is_what_the_decoder_says_by_hand_as_it_says_the_caption(step_captioner: Captioner) -> None:
    bundle = step_captioner.bundle
    (photo,) = photos(1)
    tokens = step_captioner.caption(photo[None])[0][0].tokens
    attention = step_captioner.attention(photo, tokens)
    assert (attention.shape, attention.dtype) == ((len(tokens), 2, 2), np.float32)
    assert attention.sum(axis=(1, 2)) == pytest.approx(1)
    names = bundle.contexts + bundle.states
    feeds = dict(zip(names, bundle.encoder.run(names, {"image": photo[None]}), strict=True))
    for said, seen in zip([START, *tokens], attention, strict=False):
        feeds["token"] = np.array([said])
        regions, feeds["state_h"] = bundle.decoder.run(["attention", "next_state_h"], feeds)
        assert seen.ravel() == pytest.approx(regions[0])


def test_a_model_without_attention_says_so(prefix_captioner: Captioner) -> None:
    with pytest.raises(BundleError, match="tiny cannot show where it looks: its decoder has no attention"):
        prefix_captioner.attention(photos(1)[0], [4, 5])


def test_regions_that_make_no_square_are_refused(tmp_path: Path) -> None:
    captioner = load_captioner(write_bundle(tmp_path, encoder(), step_decoder(regions=3)))
    with pytest.raises(BundleError, match="tiny looks at 3 regions, which is no square grid"):
        captioner.attention(photos(1)[0], [4, 5])


def test_no_words_no_attention(step_captioner: Captioner) -> None:
    with pytest.raises(ValueError, match="without words"):
        step_captioner.attention(photos(1)[0], [])
