"""The linear probe."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from videomac.classify.linear_probe import GRADIENT, HELD_OUT, PENALTIES, LinearProbe, _held_out, fit, fit_probe


def problem(images: int = 120, channels: int = 7, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes, channels of very different size and place, and one that never varies."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (images,), generator=generator)
    centres = torch.randn(classes, channels, generator=generator)
    features = centres[labels] + torch.randn(images, channels, generator=generator)
    features = features * torch.logspace(-3, 3, channels) + torch.linspace(-50, 50, channels)
    features[:, 2] = 3.25
    return features, labels


def objective(parameters: np.ndarray, values: np.ndarray, labels: np.ndarray, classes: int, penalty: float) -> float:
    weight, bias = parameters[:-classes].reshape(classes, -1), parameters[-classes:]
    logits = values @ weight.T + bias
    largest = logits.max(1, keepdims=True)
    normaliser = largest[:, 0] + np.log(np.exp(logits - largest).sum(1))
    return float((normaliser - logits[np.arange(len(labels)), labels]).mean() + penalty / 2 * (weight**2).sum())


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_the_probe_is_the_optimum_that_scipy_finds(penalty):
    features, labels = problem()
    probe = fit(features, labels, classes=4, penalty=penalty)
    values = features.double().numpy()
    deviation = values.std(0)
    deviation[2] = 1
    values = (values - values.mean(0)) / deviation
    found = minimize(
        objective,
        np.zeros(4 * 7 + 4),
        (values, labels.numpy(), 4, penalty),
        method="BFGS",
        options={"gtol": 1e-7, "maxiter": 5000},
    )
    ours = np.concatenate([probe.weight.flatten().numpy(), probe.bias.numpy()])
    assert objective(ours, values, labels.numpy(), 4, penalty) <= found.fun + 1e-10
    theirs = torch.from_numpy(found.x[:-4].reshape(4, 7))
    torch.testing.assert_close(probe.weight, theirs, rtol=0, atol=2e-3 if penalty < 1e-3 else 2e-5)
    logits = torch.from_numpy(values) @ theirs.T + torch.from_numpy(found.x[-4:])
    assert torch.equal(probe.logits(features).argmax(1), logits.argmax(1))


def test_the_gradient_vanishes_where_the_probe_stops_also_from_another_start():
    features, labels = problem(images=60, channels=80)  # more channels than images: separable
    first = fit(features, labels, classes=4, penalty=1e-3)
    second = fit(features, labels, classes=4, penalty=1e-3, start=fit(features, labels, classes=4, penalty=1.0))
    torch.testing.assert_close(first.weight, second.weight, rtol=0, atol=1e-3)
    for probe in (first, second):
        weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
        values = (features.double() - probe.mean) / probe.std
        loss = nn.functional.cross_entropy(values @ weight.T + bias, labels) + 1e-3 / 2 * weight.square().sum()
        loss.backward()
        assert max(weight.grad.abs().max(), bias.grad.abs().max()) <= GRADIENT


def test_the_penalty_is_the_best_on_images_that_were_not_fitted():
    features, labels = problem(images=200)
    held_out = _held_out(labels, seed=3)
    for label in range(4):
        assert held_out[labels == label].sum() == (labels == label).sum() // HELD_OUT
    right = {}
    for penalty in PENALTIES:
        probe = fit(features[~held_out], labels[~held_out], classes=4, penalty=penalty)
        right[penalty] = (probe.logits(features[held_out]).argmax(1) == labels[held_out]).sum().item()
    chosen = fit_probe(features, labels, classes=4, seed=3)
    assert chosen.penalty == max(PENALTIES, key=lambda penalty: (right[penalty], penalty))
    again = fit(features, labels, classes=4, penalty=chosen.penalty)
    assert torch.equal(chosen.weight, again.weight) and isinstance(again, LinearProbe)
    assert len(set(right.values())) > 1
