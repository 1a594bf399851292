"""The weighted k-NN classifier on frozen features (Wu et al. 2018, as in DINO): no training, one number."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

ROWS = 512
"""Images compared at once, which bounds the memory."""


def knn_votes(
    train: Float[Tensor, "train channels"],
    labels: Int[Tensor, "train"],
    test: Float[Tensor, "test channels"],
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "test classes"]:
    """Votes for each class: its share of the k most similar training images, each weighted with exp(cosine / T).

    Args:
        train: features of the training images.
        labels: their classes, in 0..classes - 1.
        test: features of the images to classify.
        classes: number of classes.
        k: neighbours, at most the number of training images.
        temperature: T, above 0; the smaller, the more the nearest count.

    Raises:
        ValueError: there are fewer than k training images.
    """
    if len(train) < k:
        raise ValueError(f"{k} neighbours asked for of {len(train)} images")
    train = F.normalize(train.float(), dim=1)
    votes = []
    for rows in torch.split(F.normalize(test.float(), dim=1), ROWS):
        similarity, nearest = (rows @ train.T).topk(k, dim=1)
        weights = torch.softmax(similarity / temperature, dim=1)  # exp(similarity / T), scaled to a sum of 1
        votes.append(weights.new_zeros(len(rows), classes).scatter_add_(1, labels[nearest], weights))
    return torch.cat(votes)
