"""Batches of mixtures: quotas, permutations."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unival.batching.mixture import Source, batches, mixture_batches, quotas, seats
from unival.errors import ConfigError

sizes = st.integers(1, 60)
weights = st.one_of(st.sampled_from([1.0, 0.125, 2.0, 1 / 3]), st.floats(1e-3, 1e3))
mixtures = st.lists(st.builds(Source, st.just("s"), sizes, weights), min_size=1, max_size=6)


def test_every_eighth_row_as_in_the_reference() -> None:
    sources = [Source("caption", 800, 1.0), Source("qa", 500, 1.0), Source("cc12m", 90, 0.125)]
    epoch = mixture_batches(sources, 17, seed=1, epoch=1)
    assert len(epoch) == 100  # one pass of the first source: 8 of its rows in each batch
    assert all(Counter(s for s, _ in batch) == {0: 8, 1: 8, 2: 1} for batch in epoch)
    assert sorted(i for batch in epoch for s, i in batch if s == 0) == list(range(800))
    small = [Counter(s for s, _ in batch) for batch in mixture_batches(sources, 2, seed=1, epoch=1)]
    assert sum(c[2] for c in small[: 8 * 17]) == 16  # batches too small for a fixed share still add up


def test_groups_of_equal_weight_share_each_batch() -> None:
    sources = [Source("image", 100, 1.0, "image"), Source("video", 30, 1.0, "video")]
    for batch in mixture_batches(sources, 16, seed=3, epoch=2):
        assert Counter(sources[s].group for s, _ in batch) == {"image": 8, "video": 8}


@settings(deadline=None, max_examples=60)
@given(mixtures, st.integers(0, 2000))
def test_seats_follow_the_shares_and_are_never_taken_back(sources: list[Source], total: int) -> None:
    shares = np.array([s.weight for s in sources])
    here, after = seats(shares, total), seats(shares, total + 1)
    assert here.sum() == total and (after - here).min() >= 0
    part = shares / shares.sum()
    # the method's own bound: 0.5 for the source's rounding, and all others' rounding times its share
    assert (np.abs(here - total * part) <= 0.5 + part * len(shares) / 2 + 1e-6).all()


@settings(deadline=None, max_examples=60)
@given(mixtures, st.integers(1, 20), st.integers(0, 5), st.sampled_from(["balanced", "proportional"]))
def test_each_source_gives_every_row_once_per_cycle(
    sources: list[Source], batch_size: int, seed: int, mode: str
) -> None:
    taken: list[list[int]] = [[] for _ in sources]
    for epoch in (1, 2, 3):
        found = mixture_batches(sources, batch_size, seed, epoch, mode, steps=9)
        assert list(found) == list(mixture_batches(sources, batch_size, seed, epoch, mode, steps=9))
        assert len(found) == 9 and all(len(batch) == batch_size for batch in found)
        for source, index in itertools.chain.from_iterable(found):
            taken[source].append(index)
    for source, rows in zip(sources, taken, strict=True):
        for start in range(0, len(rows), source.size):
            cycle = rows[start : start + source.size]
            assert len(set(cycle)) == len(cycle) and all(0 <= r < source.size for r in cycle)


def test_cycles_and_seeds_differ() -> None:
    source = [Source("a", 50)]
    orders = [
        [i for b in mixture_batches(source, 10, seed, e) for _, i in b] for seed in (0, 1) for e in (1, 2)
    ]
    assert all(sorted(o) == list(range(50)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4


def test_large_source_crosses_its_cycle() -> None:
    rows = [i for b in mixture_batches([Source("a", 70_001)], 1000, 0, 1, steps=141) for _, i in b]
    assert sorted(rows[:70_001]) == list(range(70_001)) and sorted(rows[70_001:140_002]) == list(
        range(70_001)
    )


def test_proportional_epoch_is_one_pass_of_everything() -> None:
    sources = [Source("a", 30), Source("b", 10), Source("c", 60)]
    picks = list(itertools.chain.from_iterable(mixture_batches(sources, 10, 0, 1, "proportional")))
    assert sorted(picks) == [(s, i) for s, source in enumerate(sources) for i in range(source.size)]
    assert [s for s, _ in picks[:30]] != sorted(s for s, _ in picks[:30])


@pytest.mark.parametrize("mode", ["balanced", "proportional"])
def test_quotas_say_what_an_epoch_brings(mode: str) -> None:
    sources = [Source("captions", 700), Source("questions", 90, 0.5), Source("boxes", 41)]
    found = quotas(sources, 6, mode, num_ranks=2, accumulate=3)
    epoch = mixture_batches(sources, 6, 0, 1, mode, num_ranks=2)
    counts = Counter(s for batch in epoch for s, _ in batch)
    assert [q.epoch for q in found] == [counts[s] / 2 for s in range(3)]
    assert [q.passes for q in found] == [counts[s] / source.size for s, source in enumerate(sources)]
    assert sum(q.update for q in found) == pytest.approx(6 * 2 * 3)
    assert found[0].update / found[1].update == pytest.approx(2.0 if mode == "balanced" else 700 / 45)
    # quotas hold in every update when balanced, over the epoch when proportional
    updates = [
        Counter(s for batch in epoch[n : n + 6] for s, _ in batch) for n in range(0, len(epoch) - 5, 6)
    ]
    gap = max(abs(update[s] - quota.update) for update in updates for s, quota in enumerate(found))
    assert gap < 1 if mode == "balanced" else gap > 1


def test_rare_source_comes_in_some_epoch() -> None:
    sources = [Source("a", 20), Source("rare", 5, 0.01)]
    epochs = [mixture_batches(sources, 10, 0, e) for e in range(1, 21)]
    counts = [sum(s for batch in epoch for s, _ in batch) for epoch in epochs]
    assert set(counts) == {0, 1} and sum(counts) == 6  # 600 rows x 0.01 / 1.01 = 5.9


def test_mixture_steps_divide_among_ranks() -> None:
    assert len(mixture_batches([Source("a", 100)], 8, 0, 1, num_ranks=4)) == 16


def test_sequence_behaviour() -> None:
    plain = batches(10, 4, 0, 1, shuffle=False)
    assert list(plain) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and plain[-1] == [8, 9] and len(plain) == 3
    assert plain[1:] == [[4, 5, 6, 7], [8, 9]]
    with pytest.raises(IndexError):
        plain[3]
    assert list(batches(10, 4, 0, 1, True)) != list(batches(10, 4, 0, 2, True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "balnced"}, "Did you mean 'balanced'"),
        ({"sources": []}, "at least one source"),
        ({"sources": [Source("empty", 0)]}, "'empty' has 0 rows"),
        ({"sources": [Source("a", 3, 0.0)]}, "weight 0.0"),
        ({"sources": [Source("a", 3, float("nan"))]}, "weight nan"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"epoch": 0}, "epoch is 0"),
    ],
)
def test_bad_settings_are_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixture_batches(**{"sources": [Source("a", 3)], "batch_size": 2, "seed": 0, "epoch": 1, **change})


def test_bad_sizes() -> None:
    with pytest.raises(ConfigError, match="size 0"):
        batches(0, 1, 0, 1, False)
