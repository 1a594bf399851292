"""What is labelled, as it grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from videomac.app.labelling import MOST_LABELS, Labelling
from videomac.errors import UserError

EMPTY = np.zeros((20, 30), dtype=np.uint8)


def test_a_stroke_is_as_wide_as_the_brush_and_undo_takes_it_back() -> None:
    labelling = Labelling()
    labelling.paint(3, 1, [(5, 10), (24, 10)], 2.0, EMPTY)
    mask = labelling.labels.masks[3]
    assert mask[10, 5:25].all() and mask[9:11, 15].all() and not mask[:7].any() and not mask[14:].any()
    labelling.paint(3, 0, [(15, 10)], 2.0, EMPTY)
    assert not labelling.labels.masks[3][10, 15] and labelling.labels.masks[3][10, 5]
    labelling.undo()
    assert np.array_equal(labelling.labels.masks[3], mask)
    labelling.undo()
    labelling.undo()
    assert labelling.labels.masks == {} and labelling.names == {1: "label 1"}


def test_what_has_been_propagated_is_corrected_not_lost() -> None:
    labelling, under = Labelling(), EMPTY.copy()
    under[:, :10] = 2
    labelling.paint(0, 1, [(20, 10)], 3.0, under)
    assert {*np.unique(labelling.labels.masks[0])} == {0, 1, 2} and not under[:, 10:].any()


def test_names_are_unique_and_follow_their_points() -> None:
    labelling = Labelling()
    labelling.point(0, 1, 3.0, 4.0)
    assert labelling.add() == 2
    with pytest.raises(UserError, match="another label's name"):
        labelling.rename(2, " label  1 ")
    with pytest.raises(UserError, match="a label has a name"):
        labelling.rename(2, "  ")
    labelling.rename(1, "nose")
    assert [*labelling.labels.points[0]] == ["nose"]
    labelling.remove(1)
    assert labelling.labels.points == {} and labelling.names == {2: "label 2"}
    labelling.remove(2)
    assert labelling.names == {2: "label 2"}  # the last one stays


def test_no_more_labels_than_a_mask_can_hold() -> None:
    labelling = Labelling()
    labelling.names = {number: f"label {number}" for number in range(1, MOST_LABELS + 1)}
    with pytest.raises(UserError, match="255 labels"):
        labelling.add()


def test_what_is_written_is_what_propagate_reads(tmp_path: Path) -> None:
    labelling = Labelling()
    with pytest.raises(UserError, match="nothing is labelled yet"):
        labelling.write(tmp_path / "given")
    labelling.point(2, 1, 3.25, 4.5)
    labelling.hide(4, "label 1")
    labelling.paint(2, 1, [(5, 5)], 2.0, EMPTY)
    files = labelling.write(tmp_path / "given")
    assert [file.name for file in files] == ["masks", "points.csv"]
    rows = (tmp_path / "given" / "points.csv").read_text().splitlines()
    assert rows == ["name,frame,x,y,visible", "label 1,2,3.25,4.5,1", "label 1,4,0.0,0.0,0"]
    assert (tmp_path / "given" / "masks" / "00002.png").is_file()
