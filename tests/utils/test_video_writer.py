from __future__ import annotations

from pathlib import Path

from tests.data.sample_videos import check_reading
from videomac.data.synthetic import moving_shapes
from videomac.data.video_file import VideoFile
from videomac.utils.video_writer import write_video


def test_write_video_reads_back(tmp_path: Path) -> None:
    write_video(tmp_path / "a.webm", moving_shapes(9, (48, 64))[0], fps=10)
    check_reading(tmp_path / "a.webm", 9)
    assert VideoFile(tmp_path / "a.webm").fps == 10
