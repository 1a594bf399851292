"""Scores of a classifier."""

import math

import pytest
import torch

from videomac.classify.validation import Score


def test_scores_are_those_of_a_plain_count():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 7, generator=generator), torch.randint(-1, 7, (40,), generator=generator)
    score = Score.zero(7, torch.device("cpu"))
    score.add(logits[:15], labels[:15])
    score.add(logits[15:], labels[15:])
    kept = [(row.tolist(), label) for row, label in zip(logits, labels.tolist(), strict=True) if label >= 0]
    ranks = [sum(value > row[label] for value in row) for row, label in kept]
    numbers = score.numbers()
    assert numbers["top1"] == pytest.approx(sum(rank == 0 for rank in ranks) / len(kept))
    assert numbers["top5"] == pytest.approx(sum(rank < 5 for rank in ranks) / len(kept))
    losses = [math.log(sum(map(math.exp, row))) - row[label] for row, label in kept]
    assert numbers["val_loss"] == pytest.approx(sum(losses) / len(kept), rel=1e-5)
    assert score.confusion.sum(1).tolist() == [sum(label == c for _, label in kept) for c in range(7)]
