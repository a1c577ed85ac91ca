"""The best of many scores, found by blocks."""

import pytest
import torch

from unival.generate.largest import BLOCK, largest

SIZES = [(1, 59457), (3, 5 * 59457), (2, BLOCK * 41), (2, BLOCK * 41 + 1), (2, 7), (1, BLOCK)]


@pytest.mark.parametrize("rows, number", SIZES)
@pytest.mark.parametrize("count", [1, 2, 10, 5000])
def test_values_and_places_are_those_of_topk(rows, number, count):
    torch.manual_seed(number)
    count = min(count, number)
    scores = torch.stack([torch.randperm(number) for _ in range(rows)]).float()  # no ties
    scores[:, -1] = number  # behind the last whole block
    found, places = largest(scores, count)
    expected = scores.topk(count, dim=1)
    assert torch.equal(found, expected.values) and torch.equal(places, expected.indices)


def test_equal_scores_and_impossible_ones():
    """As many of the best as there are, whatever their places; each place once."""
    scores = torch.full((1, 100 * BLOCK), -torch.inf)
    scores[0, [5, 6, 9000, 12000]] = 1.0
    found, places = largest(scores, 10)
    assert found[0, :4].tolist() == [1.0] * 4 and bool((found[0, 4:] == -torch.inf).all())
    assert sorted(places[0, :4].tolist()) == [5, 6, 9000, 12000]
    assert len(set(places[0].tolist())) == 10
