"""The linear probe: multinomial logistic regression on frozen features, solved to its optimum.

The loss is convex, so there is no schedule to tune and no luck: L-BFGS finds the one optimum for each strength of the
L2 penalty (as Kornblith et al. 2019 and CLIP do), and the strength is chosen on a part of the training images that it
was not fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

PENALTIES = tuple(10.0**exponent for exponent in range(1, -7, -1))
"""Strengths tried, from the strongest.

Channels have standard deviation 1, so these range from hardly any freedom to next to no penalty.
"""
HELD_OUT = 5
"""One in so many training images of each class decides between the penalties."""
MAX_ITERATIONS, GRADIENT = 2000, 1e-6
"""L-BFGS stops when no component of the gradient is larger."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        weight: of each class and standardised channel.
        bias: of each class.
        mean: of each channel over the training images.
        std: its standard deviation there.
        penalty: strength of the L2 penalty.
    """

    weight: Float[Tensor, "classes channels"]
    bias: Float[Tensor, "classes"]
    mean: Float[Tensor, "channels"]
    std: Float[Tensor, "channels"]
    penalty: float

    def logits(self, features: Float[Tensor, "images channels"]) -> Float[Tensor, "images classes"]:
        """Logarithms of the classes' probabilities, but for a constant."""
        return F.linear((features.double() - self.mean) / self.std, self.weight, self.bias)


def fit_probe(
    features: Float[Tensor, "images channels"],
    labels: Int[Tensor, "images"],
    *,
    classes: int,
    seed: int = 0,
) -> LinearProbe:
    """Choose the penalty on held-out training images, then fit all of them.

    Args:
        features: of the training images.
        labels: their classes, in 0..classes - 1.
        classes: number of classes.
        seed: of the choice of the held-out images.
    """
    held_out = _held_out(labels, seed)
    best, best_right = PENALTIES[0], -1
    if held_out.any():
        start = None
        for penalty in PENALTIES:
            probe = fit(features[~held_out], labels[~held_out], classes=classes, penalty=penalty, start=start)
            right = int((probe.logits(features[held_out]).argmax(1) == labels[held_out]).sum())
            if right > best_right:  # of equals the strongest penalty
                best, best_right = penalty, right
            start = probe
    return fit(features, labels, classes=classes, penalty=best)


def fit(
    features: Float[Tensor, "images channels"],
    labels: Int[Tensor, "images"],
    *,
    classes: int,
    penalty: float,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Minimise mean cross-entropy + penalty / 2 * |weight|^2, in float64, on standardised features.

    The bias is not penalised.

    Args:
        features: of the training images; channels that never vary are left at 0.
        labels: their classes.
        classes: number of classes.
        penalty: strength, above 0, which makes the optimum unique but for a constant in the bias.
        start: where to begin, which saves time and changes nothing else; 0 unless given.
    """
    values = features.double()
    std, mean = torch.std_mean(values, dim=0, correction=0)
    std = torch.where(std > 1e-12, std, torch.ones_like(std))
    values = (values - mean) / std
    weight = values.new_zeros(classes, values.shape[1]) if start is None else start.weight.clone()
    bias = values.new_zeros(classes) if start is None else start.bias.clone()
    weight.requires_grad_(), bias.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=GRADIENT,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(values, weight, bias), labels) + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return LinearProbe(weight.detach(), bias.detach(), mean, std, penalty)


def _held_out(labels: Int[Tensor, "images"], seed: int) -> Tensor:
    """One in `HELD_OUT` images of each class; classes of fewer give none."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in sorted(set(labels.tolist())):
        of_class = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(of_class), generator=generator)
        chosen[of_class[order[: len(of_class) // HELD_OUT]]] = True
    return chosen
