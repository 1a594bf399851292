import pytest
import torch

from tests.labeling.made_up import as_video, joints_of
from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.propagation import propagate_stream
from videomac.evaluate.protocols import PropagationSettings
from videomac.labeling.channels import Channels, Geometry
from videomac.labeling.labels import Labels, Point
from videomac.labeling.passes import MapStore, Propagator, merged

SETTINGS = PropagationSettings(context_frames=2, topk=3, radius=4, temperature=0.1)


def propagator(scene, labels: Labels) -> Propagator:
    geometry = Geometry((64, 96), (64, 96), 4)
    channels = Channels(labels.ids, labels.point_names, geometry)
    extractor = FeatureExtractor("raw-pixels", stride=4)
    return Propagator(as_video(scene), labels, channels, extractor, SETTINGS, torch.device("cpu"))


def test_a_pass_from_one_label_is_plain_propagation(scene, tmp_path):
    labels = Labels(masks={0: scene.objects[0]})
    job = propagator(scene, labels)
    found = dict(job.run(list(range(10)), MapStore(tmp_path), set(), []))
    features = job.extractor(job.video.read(range(10)).float() / 255)
    first = job.channels.draw(labels, 0, job.channels.blank())
    for frame, maps in enumerate(propagate_stream(features, first, SETTINGS)):
        assert torch.allclose(found[frame], maps, atol=1e-6)


def test_a_resumed_pass_sees_what_an_uninterrupted_one_saw(scene, tmp_path):
    labels = joints_of(scene, [0, 5])
    job, frames = propagator(scene, labels), list(range(10))
    whole = dict(job.run(frames, MapStore(tmp_path / "whole"), set(), [], prune=True))
    assert sorted(whole) == frames
    for stop in (1, 2, 4, 5, 6, 9):
        store = MapStore(tmp_path / str(stop))
        parts = {}
        for _ in range(20):  # interrupted again and again, after `stop` frames each time
            before = len(parts)
            for number, (frame, maps) in enumerate(job.run(frames, store, set(parts), [], prune=True)):
                if number == stop:
                    break  # the map has been kept, but nobody has used it
                parts[frame] = maps
            if len(parts) == before:
                break
        assert sorted(parts) == frames
        assert all(torch.equal(parts[frame], whole[frame]) for frame in frames)


def test_only_what_is_needed_again_is_kept(scene, tmp_path):
    job = propagator(scene, joints_of(scene, [0, 5]))
    store = MapStore(tmp_path)
    for _ in job.run(list(range(10)), store, set(), [], prune=True):
        assert len(list(tmp_path.glob("*.npz"))) <= 2 + 2 + 1


def test_what_a_labelled_frame_does_not_name_stays_as_it_was_propagated(scene, tmp_path):
    labels = joints_of(scene, [0])
    plain = dict(propagator(scene, labels).run(list(range(10)), MapStore(tmp_path / "a"), set(), []))
    labels.points[4] = {"joint1": Point(30, 30)}
    job = propagator(scene, labels)
    found = dict(job.run(list(range(10)), MapStore(tmp_path / "b"), set(), []))
    assert job.channels.point(found[4], "joint1")[:2] == pytest.approx((30, 30), abs=1e-3)
    assert torch.allclose(found[4][job.channels.groups["joint0"]], plain[4][job.channels.groups["joint0"]])
    assert not torch.allclose(found[6][job.channels.groups["joint1"]], plain[6][job.channels.groups["joint1"]])


def test_between_labelled_frames_the_nearer_one_counts_more(scene):
    labels = Labels(points={2: {"a": Point(0, 0)}, 6: {"a": Point(9, 9), "b": Point(5, 5)}})
    channels = propagator(scene, labels).channels
    one = torch.ones_like(channels.blank())
    other = one.clone()
    other[1::3] = 3  # as sure, with another opinion
    for frame, value in ((2, 1), (3, 1.5), (5, 2.5), (6, 1), (8, 1)):
        maps, both = merged(channels, labels, frame, one, other)
        assert maps[channels.groups["a"]][1].unique().tolist() == [value]
        assert both["a"] == (2 < frame < 6) and not both["b"]
    # b is known backwards from 6 only, and a not before 2
    assert torch.equal(merged(channels, labels, 3, one, other)[0][channels.groups["b"]], other[channels.groups["b"]])
    assert torch.equal(merged(channels, labels, 0, None, other)[0], other)


def test_a_pass_that_has_lost_its_object_does_not_outvote_the_other(scene):
    labels = Labels(masks={0: scene.objects[0], 9: scene.objects[9]})
    channels = propagator(scene, labels).channels
    good = channels.draw(Labels(masks={7: scene.objects[7]}), 7, channels.blank())
    lost = channels.blank()
    lost[0], lost[1:] = 0.94, 0.03
    for forward, backward in ((good, lost), (lost, good)):
        for frame in range(1, 9):
            found = channels.mask(merged(channels, labels, frame, forward, backward)[0])
            assert (found == channels.mask(good)).mean() > 0.95
