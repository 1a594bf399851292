import numpy as np
import pytest
import torch

from videomac.data.transforms import normalize
from videomac.models.losses import normalize_patches, patchify
from videomac.reconstruction.pictures import Reconstruction, reconstruct_frames, reconstruction_sheet


@pytest.fixture
def bytes_() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask() -> torch.Tensor:
    mask = torch.zeros(3, 2, 3, dtype=torch.bool)
    mask[:, 0] = True
    mask[1, 1, 2] = True
    return mask


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_a_perfect_prediction_gives_the_frame_back(bytes_, mask, norm_pix_loss):
    frames = normalize(bytes_)
    patches = patchify(frames, 32)
    prediction = normalize_patches(patches) if norm_pix_loss else patches
    pictures = reconstruct_frames(frames, prediction, mask, norm_pix_loss=norm_pix_loss)
    assert torch.equal(pictures.frame, bytes_) and torch.equal(pictures.pasted, bytes_)
    hidden = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None].expand_as(bytes_)
    assert torch.equal(pictures.reconstruction[hidden], bytes_[hidden])


def test_masked_is_grey_and_pasted_is_predicted_exactly_where_hidden(bytes_, mask):
    frames = normalize(bytes_)
    pictures = reconstruct_frames(frames, torch.zeros(3, 6, 32 * 32 * 3), mask, norm_pix_loss=True)
    hidden = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None].expand_as(bytes_)
    assert set(pictures.masked[hidden].tolist()) == {128}
    assert torch.equal(pictures.masked[~hidden], bytes_[~hidden])
    assert torch.equal(pictures.pasted[~hidden], bytes_[~hidden])
    assert torch.equal(pictures.pasted[hidden], pictures.reconstruction[hidden])
    assert set(pictures.reconstruction[~hidden].tolist()) == {128}
    first_patch = pictures.reconstruction[0, :, :32, :32].float()
    # a mean over the patch's three channels, taken in normalised space
    assert (first_patch - bytes_[0, :, :32, :32].float().mean()).abs().max() < 20
    assert (first_patch == first_patch[:, :1, :1]).all(), "zero is a patch's own flat mean"


def test_a_clip_shows_frame_masked_and_pasted_side_by_side(bytes_, mask):
    pictures = reconstruct_frames(normalize(bytes_), torch.zeros(3, 6, 32 * 32 * 3), mask, norm_pix_loss=True)
    clip = pictures.side_by_side()
    assert clip.shape == (3, 3, 64, 3 * 96 + 8) and clip.dtype == torch.uint8
    assert torch.equal(clip[..., :96], pictures.frame) and torch.equal(clip[..., -96:], pictures.pasted)


def test_the_sheet_has_both_frames_of_each_pair_in_eight_columns():
    def flat(value: int) -> Reconstruction:
        return Reconstruction(*(torch.full((2, 3, 128, 160), value + 10 * k, dtype=torch.uint8) for k in range(4)))

    sheet = reconstruction_sheet(flat(10), flat(110), ["clip a", "clip b"], caption="epoch 1")
    red = np.asarray(sheet)[..., 0]
    shown = [value for value in (10, 20, 30, 40, 110, 120, 130, 140) if (red == value).sum() >= 2 * 128 * 160]
    assert shown == [10, 20, 30, 40, 110, 120, 130, 140]
    order = [value for value in dict.fromkeys(red[sheet.height // 2 - 60].tolist()) if value in shown]
    assert order == shown, "frame, masked, reconstruction, pasted; first frame, then second"
