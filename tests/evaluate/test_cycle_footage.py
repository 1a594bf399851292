"""Which clip's pieces go into which."""

from __future__ import annotations

from pathlib import Path

import torch

from videomac.data.synthetic import moving_shapes
from videomac.data.transforms import resize_short_side
from videomac.evaluate.cycle_clips import plant
from videomac.evaluate.cycle_footage import choose_clips, planted_clips
from videomac.utils.video_writer import write_frames


def test_pieces_come_from_half_the_list_away_and_every_clip_has_a_seed_of_its_own(tmp_path: Path) -> None:
    for number in range(4):
        write_frames(tmp_path / f"v{number}", moving_shapes(3, (48, 64), seed=number)[0])
    clips = choose_clips(tmp_path, 4, 3, 1, cure="")
    frames = [resize_short_side(clip.video.read(clip.numbers), 40) for clip in clips]
    found = {clip.name: planted for clip, planted in planted_clips(clips, 40)}
    assert list(found) == [clip.name for clip in clips]
    for number, clip in enumerate(clips):
        expected = plant(frames[number], frames[(number + 2) % 4], seed=number)
        assert torch.equal(found[clip.name].frames, expected.frames)
        assert torch.equal(found[clip.name].pieces, expected.pieces)
    (last,) = planted_clips(clips, 40, without={clip.name for clip in clips[:3]})
    assert last[0] == clips[3] and torch.equal(last[1].frames, found[clips[3].name].frames)
