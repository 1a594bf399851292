"""Find the clips that look like a frame, with features that were never trained for it.

python examples/video_retrieval.py runs/mine my_videos query.png neighbours.png

Indexes frames of every video, ranks the videos by their frame nearest to the query, and draws those frames in a sheet.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

import videomac
from videomac.data.discovery import find_videos
from videomac.data.transforms import normalize, resize
from videomac.data.video import Video, VideoError
from videomac.evaluate.overlays import contact_sheet
from videomac.utils.spacing import evenly_spaced


@torch.no_grad()
def describe(backbone: nn.Module, frames: Tensor, size: tuple[int, int] = (128, 160)) -> Tensor:
    """One unit vector for each uint8 frame `[frames, 3, height, width]`: the mean of the feature map over the frame."""
    features = backbone.forward_features(normalize(resize(frames, size)))
    return nn.functional.normalize(features.mean((2, 3)), dim=1)


class Index:
    """Descriptions of evenly spaced frames of many videos, about their common mean, which says nothing."""

    def __init__(self, backbone: nn.Module, videos: Sequence[Video], frames_per_video: int = 8) -> None:
        self.backbone, self.videos = backbone, videos
        self.places, described = [], []
        for video in videos:
            places = [(video, frame) for frame in evenly_spaced(frames_per_video, len(video))]
            try:
                described += [describe(backbone, video.read([frame])) for _, frame in places]
            except VideoError as error:
                print(f"skipped {error}")
                continue
            self.places += places
        if not described:
            raise SystemExit("none of the videos can be read")
        vectors = torch.cat(described)
        self.mean = vectors.mean(0)
        self.vectors = nn.functional.normalize(vectors - self.mean, dim=1)

    def search(self, frame: Tensor, count: int = 5) -> list[tuple[Video, int, float]]:
        """The `count` videos nearest to a uint8 frame `[3, H, W]`: video, number of its nearest frame, similarity."""
        query = nn.functional.normalize(describe(self.backbone, frame[None])[0] - self.mean, dim=0)
        best: dict[str, tuple[Video, int, float]] = {}
        for similarity, place in zip(*(self.vectors @ query).sort(descending=True), strict=True):
            video, number = self.places[int(place)]
            best.setdefault(video.name, (video, number, float(similarity)))
        return list(best.values())[:count]


def sheet(query: Tensor, found: Sequence[tuple[Video, int, float]]) -> Image.Image:
    """The query and the nearest frame of each video found, side by side."""
    size = (query.shape[1], query.shape[2])
    frames = [query, *(resize(video.read([number]), size)[0] for video, number, _ in found)]
    captions = ["query", *(f"{video.name}, frame {number}: {similarity:.2f}" for video, number, similarity in found)]
    return contact_sheet("nearest clips", captions, [[frame.permute(1, 2, 0).numpy() for frame in frames]])


def main(weights: str, videos: str, query: str, out: str) -> None:
    index = Index(videomac.load_backbone(weights), find_videos(videos))
    frame = pil_to_tensor(Image.open(query).convert("RGB"))
    found = index.search(frame)
    for video, number, similarity in found:
        print(f"{similarity:.3f}  {video.name}, frame {number}")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    sheet(frame, found).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
