"""Label propagation: labels of the first frame travel through a video along the similarity of features.

The labels of a cell are a weighted mean of the labels of the `topk` most similar cells in frame 0 and the latest
frames, searched in a window around the cell; the weights are a softmax over the cosine similarities of those `topk`.

The similarity of every cell with every other is never built: a tile of cells meets only the part of the context its
windows reach, and the best are found among the maxima of the windows' rows first. Memory depends on the number of
context frames, never on the length of the video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videomac.evaluate.protocols import EarlyContext, PropagationSettings, Ties, Window

# Cosines lie in [-1, 1]; cells outside the frame or the window are pushed far below and recognised by it.
_OUTSIDE = -8.0
_VALID = -4.0


def propagate(
    features: Float[Tensor, "frames channels height width"],
    labels: Float[Tensor, "labels height width"],
    *,
    context_frames: int,
    topk: int,
    radius: int | None,
    temperature: float,
    window: Window = "square",
    first_frame_window: bool = True,
    early_context: EarlyContext = "unique",
    ties: Ties = "exact",
) -> Float[Tensor, "frames labels height width"]:
    """Propagate the labels of the first frame through a video.

    Args:
        features: one feature map a frame, of any float type; normalised to unit length over the channels here.
        labels: label map of frame 0 on the same grid, one channel a label, soft or hard.
        context_frames: how many of the latest frames are searched besides frame 0 (L).
        topk: how many cells vote (K).
        radius: half the window's size in cells (R); None searches whole frames.
        temperature: of the softmax over the K similarities (T).
        window: "square", `|dy| <= R and |dx| <= R`, or "disc", Euclidean distance `< R`.
        first_frame_window: whether the window also limits the search in frame 0.
        early_context: what the context is while fewer than L frames have passed. "unique": just those frames;
            "padded": frame 0 stands in for every frame that is missing, so that there are always L + 1;
            "repeated": frame 0 is also one of the L latest frames as long as it is one.
        ties: "exact": just K cells vote, of equally similar ones the earliest (frame 0, then older before newer frames,
            then row by row); "all": every cell as similar as the K-th.

    Returns:
        The label maps, float32 (float64 for float64 features), the first being `labels`.

    Raises:
        ValueError: an argument is out of range, or the grids of features and labels differ.
    """
    if radius is not None and radius < 1:
        raise ValueError(f"radius must be at least 1 cell or None for no window, got {radius}")
    settings = PropagationSettings(
        context_frames=context_frames,
        topk=topk,
        radius=radius or 0,
        temperature=temperature,
        window=window,
        first_frame_window=first_frame_window,
        early_context=early_context,
        ties=ties,
    )
    return torch.stack(list(propagate_stream(features, labels, settings)))


def propagate_stream(
    features: Iterable[Float[Tensor, "channels height width"]],
    labels: Float[Tensor, "labels height width"],
    settings: PropagationSettings,
    known: Sequence[Float[Tensor, "labels height width"]] = (),
    also: Sequence[tuple[Float[Tensor, "channels height width"], Float[Tensor, "labels height width"]]] = (),
) -> Iterator[Float[Tensor, "labels height width"]]:
    """`propagate` for feature maps that come one at a time: yields one label map for each, keeps only the context.

    Args:
        features: feature maps `[C, h, w]` in the order of the frames.
        labels: label map `[L, h, w]` of frame 0.
        settings: what is searched and how the found cells vote.
        known: label maps of the frames after frame 0 that were propagated before: they are yielded as they are, and
            searched by those that follow.
        also: features and label maps of further labelled frames of the video, which are always searched as frame 0 is.

    Yields:
        The label map `[L, h, w]` of each frame.

    Raises:
        ValueError: as in `propagate`.
    """
    for name in ("context_frames", "topk"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(settings, name)}")
    if settings.radius < 0:
        raise ValueError(f"radius must be at least 1 cell or 0 for no window, got {settings.radius}")
    if settings.temperature <= 0:
        raise ValueError(f"temperature must be positive, got {settings.temperature}")
    search: _Search | None = None
    for time, frame in enumerate(features):
        if frame.ndim != 3 or frame.shape[1:] != labels.shape[1:]:
            raise ValueError(
                f"features of frame {time} are {tuple(frame.shape)} [channels, height, width], but the label map is "
                f"{tuple(labels.shape)} [labels, height, width]: the grids must be the same"
            )
        if search is None:
            dtype = torch.promote_types(frame.dtype, torch.float32)
            search = _Search(settings, frame.shape, len(labels), dtype, frame.device, len(also))
            for number, (features_there, labels_there) in enumerate(also):
                search.store_at(search.extra[number], features_there, labels_there)
            result = labels.to(frame.device, dtype)
        elif time <= len(known):
            result = known[time - 1].to(frame.device, search.dtype)
        else:
            first, latest = context_of(time, settings.context_frames, settings.early_context)
            slots = [search.slot(index) for index in latest]
            labelled = [search.slot(first), *search.extra]
            if settings.first_frame_window:
                result = search(frame, windowed=[*labelled, *slots], unlimited=[])
            else:
                result = search(frame, windowed=slots, unlimited=labelled)
        search.store(time, frame, result)
        yield result


def context_of(time: int, context_frames: int, early_context: EarlyContext) -> tuple[int, list[int]]:
    """The frames that frame `time` looks at.

    Args:
        time: index of the target frame, >= 1.
        context_frames: L.
        early_context: see `propagate`.

    Returns:
        Frame 0, and the latest frames, older ones first.
    """
    latest = list(range(time - context_frames, time))
    if early_context == "padded":
        return 0, [max(index, 0) for index in latest]
    earliest = 1 if early_context == "unique" else 0
    return 0, [index for index in latest if index >= earliest]


class _Search:
    """The context of a video (features and labels of frame 0 and the latest frames) and the search in it.

    Feature maps are kept channels-last with a margin as wide as the window reaches. One more channel, 0 inside the
    frame and far below any cosine in the margin, meets a 1 in the target: so no cell of the margin is among the best.
    """

    def __init__(
        self,
        settings: PropagationSettings,
        shape: torch.Size,
        num_labels: int,
        dtype: torch.dtype,
        device: torch.device,
        extra: int = 0,
    ) -> None:
        channels, self.height, self.width = shape
        self.settings, self.dtype, self.device = settings, dtype, device
        radius, disc = settings.radius, settings.window == "disc"
        self.windowed = radius > 0
        reach = radius - disc if self.windowed else 0  # a disc is open: its last cell lies at R - 1
        self.reach_y, self.reach_x = min(reach, self.height - 1), min(reach, self.width - 1)
        self.tile_h, self.tile_w = (_even_tile(size, device) for size in (self.height, self.width))
        rows = -(-self.height // self.tile_h) * self.tile_h + 2 * self.reach_y
        columns = -(-self.width // self.tile_w) * self.tile_w + 2 * self.reach_x
        count = settings.context_frames + 1 + extra
        self.extra = list(range(settings.context_frames + 1, count))  # slots of further labelled frames
        self.bank = torch.zeros(count, rows, columns, channels + 1, dtype=dtype, device=device)
        self.bank[..., -1] = _OUTSIDE
        self.bank[:, self._rows(), self._columns(), -1] = 0
        self.labels = torch.zeros(count, rows, columns, num_labels, dtype=dtype, device=device)
        self.beyond: Tensor | None = None  # of the disc, added to the square around it
        if disc and self.windowed:
            dy, dx = (torch.arange(-r, r + 1, device=device) for r in (self.reach_y, self.reach_x))
            beyond = dy[:, None] ** 2 + dx**2 >= radius**2
            self.beyond = torch.where(beyond, _OUTSIDE, 0.0).to(dtype)

    def _rows(self) -> slice:
        return slice(self.reach_y, self.reach_y + self.height)

    def _columns(self) -> slice:
        return slice(self.reach_x, self.reach_x + self.width)

    def slot(self, time: int) -> int:
        """Where frame `time` is kept: 0 for frame 0, then a ring."""
        return 0 if time == 0 else 1 + (time - 1) % self.settings.context_frames

    def store(self, time: int, features: Tensor, labels: Tensor) -> None:
        """Keep the features `[C, h, w]` and labels `[L, h, w]` of frame `time`."""
        self.store_at(self.slot(time), features, labels)

    def store_at(self, slot: int, features: Tensor, labels: Tensor) -> None:
        """Keep them in a slot."""
        self.bank[slot, self._rows(), self._columns(), :-1] = self._normalize(features)
        self.labels[slot, self._rows(), self._columns()] = labels.permute(1, 2, 0).to(self.dtype)

    def _normalize(self, features: Tensor) -> Tensor:
        return F.normalize(features.to(self.dtype).permute(1, 2, 0), dim=-1)

    def __call__(self, features: Tensor, windowed: list[int], unlimited: list[int]) -> Tensor:
        """Labels `[L, h, w]` of the frame with these features `[C, h, w]`.

        Args:
            features: of the target frame.
            windowed: slots to search within the window, in the order in which ties are decided.
            unlimited: slots to search as a whole; they come before the others.
        """
        if not self.windowed:
            windowed, unlimited = [], unlimited + windowed
        target = F.pad(self._normalize(features), (0, 1), value=1.0)
        result = torch.empty(self.height, self.width, self.labels.shape[-1], dtype=self.dtype, device=self.device)
        for top in range(0, self.height, self.tile_h):
            for left in range(0, self.width, self.tile_w):
                cells = target[top : top + self.tile_h, left : left + self.tile_w]
                result[top : top + self.tile_h, left : left + self.tile_w] = self._tile(
                    cells, top, left, windowed, unlimited
                )
        return result.permute(2, 0, 1)

    def _tile(self, cells: Tensor, top: int, left: int, windowed: list[int], unlimited: list[int]) -> Tensor:
        """Labels of one tile: `[tile_h, tile_w, C + 1]` features -> `[tile_h, tile_w, L]`."""
        height, width, _ = cells.shape
        parts = [self._unlimited(cells, unlimited)] if unlimited else []
        parts += [self._windowed(cells, top, left, windowed)] if windowed else []
        similarity, index = _voters(parts, self.settings.topk, self.settings.ties)
        valid = similarity > _VALID
        weights = torch.softmax((similarity / self.settings.temperature).masked_fill(~valid, -torch.inf), dim=-1)
        votes = self.labels.flatten(0, 2)[index]
        return torch.einsum("nk,nkl->nl", weights, votes).view(height, width, -1)

    def _unlimited(self, cells: Tensor, slots: list[int]) -> _Candidates:
        """All cells of whole frames, in rows."""
        keys = self.bank[slots, self._rows(), self._columns()].flatten(0, 2)
        similarity = (cells.flatten(0, 1) @ keys.T).view(-1, len(slots) * self.height, self.width)
        row = torch.arange(self.height, device=self.device)
        first_cells = self._bank_index(
            torch.tensor(slots, device=self.device)[:, None], row + self.reach_y, self.reach_x
        )
        return _Candidates(
            similarity, first_cells.flatten(), torch.zeros(len(similarity), 1, dtype=torch.long, device=self.device)
        )

    def _windowed(self, cells: Tensor, top: int, left: int, slots: list[int]) -> _Candidates:
        """The rows of the windows around a tile's cells."""
        height, width, _ = cells.shape
        rows, columns = height + 2 * self.reach_y, width + 2 * self.reach_x
        keys = torch.stack([self.bank[slot, top : top + rows, left : left + columns] for slot in slots])
        similarity = cells.flatten(0, 1) @ keys.view(-1, keys.shape[-1]).T  # [cells, slots * rows * columns]
        # The window of cell (y, x) begins at row y and column x of the tile's surroundings, so that the next cell is
        # one row of the similarities on, and one row or column within it.
        per_cell, per_slot = similarity.shape[1], rows * columns
        size = (height, width, len(slots), 2 * self.reach_y + 1, 2 * self.reach_x + 1)
        windows = similarity.as_strided(
            size, (width * per_cell + columns, per_cell + 1, per_slot, columns, 1)
        ).contiguous()
        if self.beyond is not None:
            windows += self.beyond
        y, x, dy = (torch.arange(n, device=self.device) for n in (height, width, size[3]))
        first_cells = self._bank_index(torch.tensor(slots, device=self.device)[:, None], dy + top, left)
        offsets = self._bank_index(0, y[:, None], x)
        return _Candidates(windows.view(height * width, -1, size[4]), first_cells.flatten(), offsets.reshape(-1, 1))

    def _bank_index(self, slot: Tensor | int, row: Tensor, column: Tensor | int) -> Tensor:
        """Where a cell lies in the flattened bank."""
        return (slot * self.bank.shape[1] + row) * self.bank.shape[2] + column


@dataclass(frozen=True)
class _Candidates:
    """Similarities of n cells with the rows they search, each row consecutive in the bank.

    Attributes:
        similarity: `[n, rows, length]`.
        rows: `[rows]`, index in the bank of each row's first cell, for the first of the n cells.
        offsets: `[n, 1]`, how much farther on the rows of each cell begin.
    """

    similarity: Tensor
    rows: Tensor
    offsets: Tensor

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """Similarities and bank indices, in the order of the search, of cells among which are the `count` best.

        The `count` best lie in the `count` rows with the largest maxima: were one in another row, each of those would
        hold a cell before it. Equal ones count as better the earlier they come, for rows as for cells.
        """
        n, rows, length = self.similarity.shape
        chosen = _largest(self.similarity.amax(-1), min(count, rows)).sort(dim=-1).values
        similarity = self.similarity.gather(1, chosen[..., None].expand(-1, -1, length))
        first = self.rows[chosen] + self.offsets
        index = first[..., None] + torch.arange(length, device=first.device)
        return similarity.view(n, -1), index.view(n, -1)


def _voters(parts: list[_Candidates], topk: int, ties: Ties) -> tuple[Tensor, Tensor]:
    """Similarities and bank indices `[n, K or more]` of the cells that vote; what has no vote is marked as outside."""
    total = sum(part.similarity[0].numel() for part in parts)
    count = min(topk if ties == "exact" else topk + 1, total)
    while True:
        candidates = [part.best(count) for part in parts]
        similarity, index = (torch.cat(tensors, dim=-1) for tensors in zip(*candidates, strict=True))
        order = _largest(similarity, count)
        similarity, index = similarity.gather(1, order), index.gather(1, order)
        if ties == "exact" or topk >= total:
            return similarity, index
        threshold = similarity.topk(topk, dim=-1).values[:, -1:]
        # If even the last is as similar as the K-th, there may be more of them.
        open_end = (similarity.amin(-1, keepdim=True) == threshold) & (threshold > _VALID)
        if count == total or not open_end.any():
            return similarity.masked_fill(similarity < threshold, _OUTSIDE), index
        count = min(4 * count, total)


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices `[n, count]`, in no order, of the largest of each row of `[n, m]`; of equal ones the first."""
    if count >= values.shape[1]:
        return torch.arange(values.shape[1], device=values.device).expand(len(values), -1)
    top = values.topk(count + 1, dim=-1)
    if (top.values[:, count - 1] == top.values[:, count]).any():  # topk would choose among equal ones as it likes
        return values.sort(dim=-1, descending=True, stable=True).indices[:, :count]
    return top.indices[:, :count]


def _even_tile(size: int, device: torch.device) -> int:
    """Side of the tiles that a side of the grid is cut into: equal ones, near the size that was measured fastest."""
    best = 10 if device.type == "cpu" else 32
    return -(-size // max(1, round(size / best)))
