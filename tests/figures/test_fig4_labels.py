"""Fig. 4: a row for each evaluation."""

from __future__ import annotations

import numpy as np

from videomac.figures.fig4_labels import Propagated, propagated_labels


def test_each_row_shows_the_frames_of_one_evaluation_in_order() -> None:
    pictures = [np.full((8, 12, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    long, short = Propagated("davis", "cow", [0, 4, 9], pictures), Propagated("vip", "run", [0, 2], pictures[1:])
    figure = propagated_labels([long, short])
    strips = figure.subfigs
    assert [strip.get_suptitle() for strip in strips] == ["davis", "vip"]
    shown = [[int(axis.images[0].get_array().max()) for axis in strip.axes if axis.images] for strip in strips]
    assert shown == [[10, 20, 30], [20, 30]]
    titles = [[axis.get_title() for axis in strip.axes if axis.images] for strip in strips]
    assert titles == [["frame 0, given", "frame 4", "frame 9"], ["frame 0, given", "frame 2"]]
