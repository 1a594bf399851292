"""Fig. 8: what stands where."""

from __future__ import annotations

from tests.figures.pictures import flat_pictures
from videomac.figures.fig8_reconstruction import reconstructions


def test_each_row_shows_both_frames_what_was_seen_of_them_and_what_was_made_of_it() -> None:
    first, second = flat_pictures(10, count=2), flat_pictures(110, count=2)
    first.frame[1] = 5
    figure = reconstructions(first, second, ["0 and 1", "4 and 5"], "75% hidden")
    shown = [int(axis.images[0].get_array().max()) for axis in figure.axes]
    assert shown == [10, 20, 40, 110, 120, 140, 5, 20, 40, 110, 120, 140]
    titles = [axis.get_title().splitlines()[-1] for axis in figure.axes[:6]]
    assert titles == ["frame", "seen", "reconstructed"] * 2
    assert "online" in figure.axes[1].get_title() and "target" in figure.axes[4].get_title()
    assert [axis.get_ylabel() for axis in figure.axes[::6]] == ["0 and 1", "4 and 5"]
    assert figure.get_suptitle() == "75% hidden"
