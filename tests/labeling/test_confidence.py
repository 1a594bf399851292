import numpy as np

from tests.labeling.made_up import joints_of
from videomac.labeling.channels import Channels, Geometry
from videomac.labeling.confidence import agreement, certainty, doubt_of, label_next, plot, presence, share_of


def test_votes_for_one_label_are_sure_and_split_ones_are_not(scene):
    labels = joints_of(scene, [0], count=1)
    labels.masks[0] = scene.objects[0]
    channels = Channels(labels.ids, labels.point_names, Geometry((64, 96), (64, 96), 4))
    maps = channels.draw(labels, 0, channels.blank())
    sure = certainty(channels, maps)
    assert list(sure) == ["1", "2", "joint0"] and sure["1"] > 0.8 and sure["joint0"] == 1
    blurred = certainty(channels, maps / 2)
    assert all(blurred[name] < 0.6 * sure[name] for name in sure)
    assert agreement(channels, maps, maps) == {"1": 1, "2": 1, "joint0": 1}
    moved = agreement(channels, maps, maps.roll(4, dims=2))
    assert moved["1"] < 0.7 and moved["joint0"] < 0.3


def test_doubt_is_measured_against_the_labelled_frames():
    rows = [{"a": 0.8, "b": 1.0}, {"a": 0.8, "b": 0.5}, {"a": 0.4, "b": 0.5}, {"a": 0.9, "b": 1.0}]
    assert np.allclose(doubt_of(rows, [True, False, False, False]), [0, 0.25, 0.5, 0])


def test_a_frame_shows_a_share_of_what_is_labelled(scene):
    labels = joints_of(scene, [0], count=1)
    labels.masks[0] = scene.objects[0]
    channels = Channels(labels.ids, labels.point_names, Geometry((64, 96), (64, 96), 4))
    maps = channels.draw(labels, 0, channels.blank())
    half = maps.clone()
    half[1:3] /= 2
    rows = [presence(channels, maps), presence(channels, half), presence(channels, channels.blank())]
    assert np.allclose(share_of(rows, [True, False, False]), [1, 2 / 3, 0], atol=0.01)


def test_the_frame_to_label_next_lies_where_doubt_is():
    even = np.full(90, 0.3)
    assert abs(label_next(even, np.ones(90), [0], 1)[0] - 60) <= 1  # two thirds of the way from the only label
    assert abs(label_next(even, np.ones(90), [0, 89], 1)[0] - 44) <= 1
    doubt = np.where(np.arange(90) >= 30, 1.0, 0.0)  # a frame of doubt is as far as two others
    assert label_next(doubt, np.ones(90), [0, 89], 1)[0] > 44
    hidden = np.where(np.abs(np.arange(90) - 60) <= 5, 0.1, 1.0)
    assert label_next(even, hidden, [0], 1)[0] in (54, 66)
    several = label_next(even, np.ones(90), [0], 3)
    assert len(set(several)) == 3 and 0 not in several
    assert label_next(np.zeros(3), np.ones(3), [0, 1, 2], 5) == []


def test_the_plot_is_drawn(tmp_path):
    rows = [{"a": 0.5, "b": 0.7}] * 4
    plot(tmp_path / "a.png", [0, 1, 2, 9], rows, [0], [2])
    assert (tmp_path / "a.png").stat().st_size > 1000
