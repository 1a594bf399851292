from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.study.conftest import pretend
from videomac.study import figure
from videomac.study.plan import Study
from videomac.study.table import lines_of


def test_the_figure_shows_differences_to_the_first_row(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(study, tmp_path)
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    figure.draw(study, lines_of(study, tmp_path), tmp_path / "study.png")
    axes = drawn[0].axes
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()][-1] == "the paper"
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["without $loss$", "deep"]
    diamonds = [line.get_xdata() for line in axes[0].lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert np.ravel(diamonds) == pytest.approx([-7.8, -0.2])
    dots = [line.get_xdata() for line in axes[0].lines if line.get_markersize() == 4 and len(line.get_xdata())]
    assert np.ravel(dots) == pytest.approx([-6, -6, 0.5, 0.5])
    with Image.open(tmp_path / "study.png") as picture:
        assert picture.width > picture.height


def test_a_study_of_ones_own_has_no_diamonds(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(study, rows=tuple(replace(row, paper=None, expect=None) for row in study.rows))
    pretend(own, tmp_path)
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (drawn.append(self), path.touch()))
    figure.draw(own, lines_of(own, tmp_path), tmp_path / "study.png")
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["here: mean, 95 % interval", "a seed"]


def test_a_figure_of_what_is_there(study: Study, tmp_path: Path) -> None:
    figure.draw(study, lines_of(study, tmp_path), tmp_path / "study.png")  # the paper's values alone
    assert (tmp_path / "study.png").is_file()
