import gc
import weakref

import numpy as np
import torch

from tests.labeling.made_up import QUICK, write_masks
from videomac.labeling import command


class Counted:
    """A video of any length whose frames are made when they are read, and counted as long as anyone holds them."""

    name, fps = "made-up", 12.0

    def __init__(self, length: int, scene) -> None:
        self.length, self.first, self.held, self.most = length, scene.frames[0], 0, 0

    def __len__(self) -> int:
        return self.length

    def read(self, indices):
        frames = torch.from_numpy(
            np.stack([np.roll(self.first, index % 9, axis=1) for index in indices]).transpose(0, 3, 1, 2).copy()
        )
        self.held += len(indices)
        self.most = max(self.most, self.held)
        weakref.finalize(frames.untyped_storage(), self._let_go, len(indices))
        return frames

    def _let_go(self, count: int) -> None:
        self.held -= count


def test_as_much_is_held_of_a_long_video_as_of_a_short_one(scene, tmp_path, monkeypatch):
    """Decoded frames, and label maps on disk: what would grow with the video."""
    monkeypatch.setattr("videomac.labeling.frames.BYTES_AT_ONCE", 4 * 3 * 64 * 96)
    labels, most, maps = write_masks(tmp_path / "m", scene, [0]), [], []
    save = command.MapStore.save

    def counting(self, frame, tensor):
        save(self, frame, tensor)
        maps[-1] = max(maps[-1], len(list(self.folder.glob("0*.npz"))))

    monkeypatch.setattr(command.MapStore, "save", counting)
    for length in (15, 60):
        gc.collect()
        video = Counted(length, scene)
        maps.append(0)
        monkeypatch.setattr(command, "open_video", lambda path, video=video: video)
        command.propagate_video("a.mp4", labels=labels, out=tmp_path / str(length), **{**QUICK, "stride": 8})
        most.append(video.most)
    assert most[0] == most[1] <= 12 and maps[0] == maps[1] <= 10
