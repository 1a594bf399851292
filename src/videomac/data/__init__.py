"""From folders of videos to batches of masked, augmented pairs of frames."""

from videomac.data.pairs import FramePairs, PairSampler
from videomac.data.transforms import PairTransform, denormalize, normalize
from videomac.data.videos import (
    FrameFolder,
    MemoryVideo,
    Video,
    VideoError,
    VideoFile,
    cache_in_memory,
    find_videos,
    select_hours,
)

__all__ = [
    "FrameFolder",
    "FramePairs",
    "MemoryVideo",
    "PairSampler",
    "PairTransform",
    "Video",
    "VideoError",
    "VideoFile",
    "cache_in_memory",
    "denormalize",
    "find_videos",
    "normalize",
    "select_hours",
]
