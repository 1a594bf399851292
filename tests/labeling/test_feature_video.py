import av
import pytest
import torch
from PIL import Image

from videomac import cli
from videomac.errors import UserError
from videomac.labeling.config import FeaturesConfig
from videomac.labeling.feature_video import Colours, run


def test_colours_are_the_components_with_the_most_variance_and_their_signs_are_fixed():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    scores = torch.randn(2000, 8, generator=generator) * torch.tensor([9.0, 4, 2, 0.1, 0.1, 0.1, 0.1, 0.1])
    features = scores @ basis.T + 3
    colours = Colours.fit(features)
    cosine = (torch.nn.functional.normalize(colours.components, dim=1) @ basis[:, :3]).abs()
    assert torch.allclose(cosine, torch.eye(3), atol=0.03) and colours.explained > 0.99
    again = Colours.fit(features.flip(0))
    assert torch.allclose(colours.components, again.components, atol=1e-4)
    projected = (features - colours.mean) @ colours.components.T
    assert torch.allclose(projected.std(0), torch.ones(3), atol=0.02)
    picture = colours(features[:6].T.reshape(8, 2, 3), (4, 6))
    assert picture.shape == (3, 4, 6) and torch.equal(picture[:, ::2, ::2], picture[:, 1::2, 1::2])


def test_features_of_fewer_channels_than_colours_are_shown_too():
    assert Colours.fit(torch.rand(50, 2)).components.shape == (3, 2)


def test_several_backbones_stand_side_by_side(folder, tmp_path):
    out = tmp_path / "out"
    config = FeaturesConfig(folder, out, ["raw-pixels", "test_convnext"], short_side=64)
    metrics = run(config)
    assert list(metrics["explained_variance"]) == ["raw-pixels", "test_convnext, random"]
    with av.open(str(out / "features.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 10 and (frames[0].height, frames[0].width) == (64 + 24, 3 * 96 + 2 * 4)
    with Image.open(out / "sheet.png") as image:
        assert image.size == (3 * 96 + 2 * 4, 24 + 4 * 64)
    with pytest.raises(UserError, match="already holds a run"):
        run(config)


def test_a_still_scene_does_not_flicker(tmp_path):
    from videomac.utils.video_writer import write_frames

    still = torch.randint(0, 255, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_frames(tmp_path / "still", still.repeat(6, 1, 1, 1))
    run(FeaturesConfig(tmp_path / "still", tmp_path / "out", ["raw-pixels"], short_side=64))
    with av.open(str(tmp_path / "out" / "features.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert max(abs(frame - frames[0]).mean() for frame in frames) < 3


def test_the_command_line_takes_several_backbones(folder, tmp_path):
    line = ["features", str(folder), "--backbone", "raw-pixels", "resnet18", "--out", str(tmp_path)]
    assert cli.parse(line[0], line[1:]).backbone == ["raw-pixels", "resnet18"]
    with pytest.raises(UserError, match="no backbone is named"):
        FeaturesConfig(folder, tmp_path)
