"""The k-NN classifier."""

import math

import pytest
import torch

from videomac.classify.knn import knn_votes


def slow_votes(train, labels, test, classes, k, temperature) -> list[list[float]]:
    """One image, one neighbour at a time."""
    votes = []
    for image in test:
        neighbours = []
        for other, label in zip(train, labels, strict=True):
            lengths = math.sqrt(sum(x * x for x in image)) * math.sqrt(sum(y * y for y in other))
            neighbours.append((sum(x * y for x, y in zip(image, other, strict=True)) / lengths, label))
        tally = [0.0] * classes
        for similarity, label in sorted(neighbours, reverse=True)[:k]:
            tally[label] += math.exp(similarity / temperature)
        votes.append([vote / sum(tally) for vote in tally])
    return votes


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (40, 0.5)])
def test_votes_are_those_of_a_slow_reading_of_the_definition(k, temperature):
    generator = torch.Generator().manual_seed(k)
    train, test = torch.randn(40, 6, generator=generator), torch.randn(9, 6, generator=generator)
    labels = torch.randint(0, 4, (40,), generator=generator)
    votes = knn_votes(train, labels, test, classes=4, k=k, temperature=temperature)
    expected = torch.tensor(slow_votes(train.tolist(), labels.tolist(), test.tolist(), 4, k, temperature))
    torch.testing.assert_close(votes, expected, rtol=1e-4, atol=1e-6)


def test_votes_do_not_depend_on_length_or_on_how_many_are_compared_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(30, 5, generator=generator), torch.randn(11, 5, generator=generator)
    labels = torch.arange(30) % 3
    votes = knn_votes(train, labels, test, classes=3)
    monkeypatch.setattr("videomac.classify.knn.ROWS", 4)
    torch.testing.assert_close(knn_votes(train * 7, labels, test * 0.3, classes=3), votes)
    with pytest.raises(ValueError, match="31 neighbours asked for of 30"):
        knn_votes(train, labels, test, classes=3, k=31)
