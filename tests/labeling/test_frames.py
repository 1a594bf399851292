import shutil

import pytest
import torch
from PIL import Image

from tests.data.sample_videos import Numbers
from videomac.data.video import VideoError
from videomac.errors import UserError
from videomac.labeling import frames
from videomac.labeling.frames import chosen_frames, frame_size, open_video, read_frames


def test_frames_come_in_the_order_asked_for_whatever_is_read_at_once(monkeypatch):
    video = Numbers("a", 20)
    for at_once in (1, 3, 50):
        monkeypatch.setattr(frames, "BYTES_AT_ONCE", at_once * 3 * 16 * 16)
        for order in (range(3, 20, 2), range(19, -1, -1)):
            found = [(number, int(frame[0, 0, 0])) for number, frame in read_frames(video, list(order), (16, 16))]
            assert found == [(number, number) for number in order]


@pytest.mark.parametrize("order", [range(12), range(11, -1, -1)])
def test_what_comes_before_a_frame_that_cannot_be_read_is_kept(order):
    found = []
    with pytest.raises(VideoError, match="cannot be decoded"):
        found += [
            found.append(number) for number, _ in read_frames(Numbers("a", 12, broken=(7,)), list(order), (16, 16))
        ]
    assert found == list(order)[: list(order).index(7)]


def test_a_change_of_size_is_named(tmp_path, folder):
    changing = shutil.copytree(folder, tmp_path / "changing")
    Image.new("RGB", (96, 48)).save(changing / "00006.png")
    seen = []
    with pytest.raises(VideoError, match="size changes from 96x64 to 96x48 at frame 6"):
        for number, frame in read_frames(open_video(changing), list(range(10)), (64, 96)):
            seen.append(number)
            assert frame.dtype == torch.uint8
    assert seen == [0, 1, 2, 3, 4, 5]


def test_every_so_manieth_frame_and_the_labelled_ones():
    assert chosen_frames(10, 1, None, 4, [6]) == [1, 5, 6, 9]
    assert chosen_frames(10, 2, 5, 1) == [2, 3, 4]
    for start, stop in ((10, None), (0, 11)):
        with pytest.raises(UserError, match="the video has frames 0 to 9"):
            chosen_frames(10, start, stop, 1)


def test_one_video_is_wanted(clips, folder):
    assert len(open_video(folder)) == 10 and frame_size(open_video(folder)) == (64, 96)
    with pytest.raises(UserError, match="4 videos, such as clip0"):
        open_video(clips)
