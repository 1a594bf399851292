import numpy as np
import pytest

import videomac
from tests.labeling.made_up import QUICK, joints_of, write_points
from videomac.errors import UserError
from videomac.labeling.formats import read_labels
from videomac.labeling.frames import open_video
from videomac.labeling.labels import Labels, Point

sleap_io = pytest.importorskip("sleap_io")


def test_sleap_io_reads_what_was_written(scene, folder, tmp_path):
    joints = joints_of(scene, [0])
    points = {f"fly{k % 2}.{name}": point for k, (name, point) in enumerate(joints.points[0].items())}
    write_points(tmp_path / "p.csv", Labels(points={0: points}))
    videomac.propagate_video(folder, labels=tmp_path / "p.csv", out=tmp_path / "out", formats=["sleap"], **QUICK)
    content = sleap_io.load_slp(str(tmp_path / "out" / "labels.slp"), open_videos=False)
    assert [frame.frame_idx for frame in content.labeled_frames] == list(range(10))
    assert sorted(track.name for track in content.tracks) == ["fly0", "fly1"]
    (first,) = (i for i in content.labeled_frames[0].instances if i.track.name == "fly0")
    found = dict(zip(first.skeleton.node_names, first.numpy(), strict=True))
    assert found["joint0"] == pytest.approx(scene.joints[0, 0])
    assert np.isnan(found["joint1"]).all()  # is the other fly's
    back = read_labels(tmp_path / "out" / "labels.slp", open_video(folder), 0, (64, 96))
    for name, point in points.items():
        assert back.points[0][name] == Point(pytest.approx(point.x), pytest.approx(point.y))


def test_a_file_of_other_videos_is_refused(folder, tmp_path):
    skeleton = sleap_io.Skeleton(["nose"])
    frames = [
        sleap_io.LabeledFrame(
            video=sleap_io.Video(filename=name, open_backend=False),
            frame_idx=3,
            instances=[sleap_io.Instance.from_numpy(np.array([[5.0, 6.0]]), skeleton)],
        )
        for name in ("one.mp4", "two.mp4")
    ]
    sleap_io.save_slp(sleap_io.Labels(frames), str(tmp_path / "two.slp"), verbose=False)
    with pytest.raises(UserError, match="is of 2 videos, none of which is walk"):
        read_labels(tmp_path / "two.slp", open_video(folder), 0, (64, 96))
    sleap_io.save_slp(sleap_io.Labels(frames[:1]), str(tmp_path / "one.slp"), verbose=False)
    assert read_labels(tmp_path / "one.slp", open_video(folder), 0, (64, 96)).points == {3: {"nose": Point(5, 6)}}
    (tmp_path / "bad.slp").write_text("nothing")
    with pytest.raises(UserError, match=r"bad\.slp is not a readable"):
        read_labels(tmp_path / "bad.slp", open_video(folder), 0, (64, 96))
