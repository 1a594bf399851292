"""What the model card says of a run's length."""

import pytest

from videomac.exporting.model_card import _warmup


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warmup_epochs": None, "epochs": 30}, "3 epochs"),
        ({"warmup_epochs": None, "epochs": 800}, "10 epochs"),
        ({"warmup_epochs": 0.5, "epochs": None}, "0.5 epochs"),
        ({"warmup_epochs": None, "epochs": None}, "a tenth of the run, at most 10 epochs,"),
    ],
)
def test_the_warm_up_is_told_for_runs_of_epochs_and_of_steps(settings, said):
    assert _warmup(settings) == said
