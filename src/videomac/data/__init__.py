"""From folders of videos to batches of masked, augmented pairs of frames."""

from videomac.data.cache import MemoryVideo, cache_in_memory
from videomac.data.discovery import find_videos, select_hours
from videomac.data.frame_folder import FrameFolder
from videomac.data.loader import PairSampler
from videomac.data.pairs import FramePairs
from videomac.data.transforms import PairTransform, denormalize, normalize
from videomac.data.video import Video, VideoError
from videomac.data.video_file import VideoFile

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
