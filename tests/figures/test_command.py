"""`videomac figures`: the numbers behind the pictures, and which pictures are drawn from what."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from videomac import cli
from videomac.figures import fig2_attribution as attention
from videomac.figures import fig6_fig7_losses as curves
from videomac.figures.command import run, sequence_scores
from videomac.figures.config import FiguresConfig
from videomac.inspection import mask_dissipation as dissolve
from videomac.models.videomac import VideoMAC

# Fig. 2 ---------------------------------------------------------------------------------------------------------------


def tiny_network() -> nn.Module:
    torch.manual_seed(0)
    model = VideoMAC("convnextv2_tiny", decoder_width=8, backbone_args={"depths": [1, 1, 1, 1], "dims": [4, 8, 12, 16]})
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.online.double().eval()


def test_a_contribution_is_what_the_content_of_a_cell_changes() -> None:
    """Against finite differences: let the content of a cell fade by a little and look at every hidden value."""
    network = tiny_network()
    torch.manual_seed(3)
    frame = torch.randn(3, 64, 64, dtype=torch.float64)
    mask = torch.tensor([[[True, False], [True, True]]])
    directions = torch.Generator().manual_seed(1)
    maps = attention.contributions(network, frame, mask, 8, draws=400, generator=directions)[0]
    assert maps.shape == (8, 8) and (maps[:4, :4] == 0).all() and (maps[4:] == 0).all(), "hidden is never read"
    mean = frame[:, :32, 32:].mean((1, 2))
    for row, column in ((0, 4), (2, 6), (3, 7)):
        content = torch.zeros_like(frame)
        place = np.s_[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        content[place] = frame[place] - mean[:, None, None]
        with torch.no_grad():
            change = network((frame + 1e-5 * content)[None], mask) - network((frame - 1e-5 * content)[None], mask)
        exact = (change[:, [0, 2, 3]] / 2e-5).square().mean().item()
        assert maps[row, column].item() == pytest.approx(exact, rel=0.3), "400 random directions"
    flat = frame.clone()
    flat[:, :32, 32:] = mean[:, None, None]
    assert attention.contributions(network, flat, mask, 8).max() < 1e-20, "where nothing is to be seen"


def test_every_patch_is_shown_and_the_average_counts_only_the_masks_that_show_it() -> None:
    masks = attention.covering_masks(6, (3, 5), 0.75, torch.Generator().manual_seed(0))
    assert masks.shape == (10, 3, 5) and ((~masks).flatten(1).sum(1) == 3).all(), "two rounds of five"
    assert ((~masks).sum(0) == 2).all()
    uneven = attention.covering_masks(1, (2, 2), 0.3, torch.Generator().manual_seed(0))
    assert ((~uneven).sum(0) >= 1).all() and ((~uneven).flatten(1).sum(1) == 2).all()
    seen = (~masks).repeat_interleave(2, 1).repeat_interleave(2, 2).double()
    heat = attention.heat_map(9 * seen, masks)
    assert heat.shape == (6, 10) and torch.equal(heat, torch.full_like(heat, 3.0))
    assert attention.correlation(heat + torch.eye(10).double()[:6], torch.eye(10).double()[:6]) == pytest.approx(1)


# Fig. 5 ---------------------------------------------------------------------------------------------------------------


def test_the_data_of_figure_5_are_its_maps() -> None:
    _, data = dissolve.figure("test_convnext", (64, 96), 0.75)
    hidden = data["mask"]
    assert hidden.shape == (2, 3)
    for name, values in data.items():
        if name.startswith("sparse_"):
            scale = (values.shape[0] // 2, values.shape[1] // 3)
            assert (values[np.kron(hidden, np.ones(scale, dtype=bool))] == 0).all()
    assert (data["dense_stages.3"] > 0).all(), "dissolved"


# Fig. 6 and 7 ---------------------------------------------------------------------------------------------------------


def write_run(folder: Path, gamma: float, backbone: str = "resnet18", seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    settings = {"data": "videos", "backbone": backbone, "gamma": gamma, "seed": seed, "out": str(folder)}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("step", "epoch", *curves.COMPONENTS))
        writer.writeheader()
        for step in range(1, 21):
            values = dict.fromkeys(curves.COMPONENTS, 1 / step + gamma)
            writer.writerow({"step": step, "epoch": (step - 1) // 5 + 1, **values})
    return folder


def test_epochs_and_values_come_from_the_csv(tmp_path: Path) -> None:
    curve = curves.read_curve(write_run(tmp_path / "run", 0.5))
    assert curve.epochs == [step / 5 for step in range(1, 21)]
    assert curve.losses["target_loss"][3] == 1 / 4 + 0.5
    rows = curves.rows([curve])
    assert len(rows) == 20 and rows[9] == {
        "run": "run", "backbone": "resnet18", "gamma": 0.5, "epoch": 2.0, **dict.fromkeys(curves.COMPONENTS, 0.6),
    }  # fmt: skip


def test_only_runs_that_differ_in_one_thing_are_compared(tmp_path: Path) -> None:
    made = [("a", 1.0, "resnet18", 0), ("b", 0.0, "resnet18", 0), ("c", 1.0, "resnet50", 0), ("d", 0.5, "resnet18", 7)]
    read = [curves.read_curve(write_run(tmp_path / name, *settings)) for name, *settings in made]
    gammas, encoders = curves.families(read)
    assert [curve.name for curve in gammas] == ["b", "a"], "by gamma; d has another seed"
    assert [curve.name for curve in encoders] == ["a", "c"]
    figure, obstacle = curves.by_gamma(read)
    assert figure is not None and not obstacle
    labels = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]
    assert [label.split("  ")[0] for panel in labels for label in panel] == [
        f"{curves.GAMMA} = 0", f"{curves.GAMMA} = 1", "resnet18", "resnet50",
    ]  # fmt: skip
    assert curves.by_gamma(read[:1])[0] is None


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A short run, an evaluation with overlays, a video."""
    import videomac
    from videomac.data.synthetic import moving_shapes
    from videomac.evaluate.synthetic import scene, write_davis
    from videomac.utils.video_writer import write_video

    root = tmp_path_factory.mktemp("figures")
    (root / "clips").mkdir()
    for number in range(2):
        write_video(root / "clips" / f"{number}.mp4", moving_shapes(12, (64, 96), seed=number)[0])
    videomac.pretrain(
        data=root / "clips", backbone="test_convnext", out=root / "run", image_size=64, epochs=2, global_batch_size=8,
        decoder_width=8, held_out=0, workers=0, trainer={"accelerator": "cpu"},
    )  # fmt: skip
    write_davis(root / "davis", {f"scene{n}": scene(4, (64, 96), 2, seed=n) for n in range(3)})
    videomac.evaluate.davis(root / "run", data=root / "davis", out=root / "eval", size="64x96", stride=16)
    return {"run": root / "run", "eval": root / "eval", "video": root / "clips" / "0.mp4"}


def test_all_that_can_be_drawn_is_drawn(material: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    config = FiguresConfig(
        [material["run"]], tmp_path, video=material["video"], evaluations=[material["eval"]], pairs=2, masks=4
    )
    metrics = run(config)
    for name in ("fig2", "fig4", "fig5", "fig6", "fig8"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 300
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()[:1000]
    assert not (tmp_path / "fig7.png").exists() and "fig7  not drawn: needs runs that differ" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    with np.load(tmp_path / "fig2.npz") as data:
        assert data["heat"].shape == (2, 8, 12) and data["masks"].shape == (6, 2, 3)
        assert metrics["fig2"] == pytest.approx(np.corrcoef(data["heat"].reshape(2, -1))[0, 1], abs=1e-4)
    with np.load(tmp_path / "fig8.npz") as data:
        hidden = data["mask"].repeat(32, 1).repeat(32, 2)[:, None].repeat(3, 1)
        assert (data["frame_a"] == data["pasted_a"])[~hidden].all()
        assert not (data["frame_a"] == data["pasted_a"])[hidden].all()
    with (tmp_path / "fig6-7.csv").open(newline="") as file, (material["run"] / "metrics.csv").open(newline="") as own:
        drawn, written = list(csv.DictReader(file)), list(csv.DictReader(own))
    assert [row["online_loss"] for row in drawn] == [row["online_loss"] for row in written]


def test_figure_4_shows_the_median_sequence(material: dict[str, Path], tmp_path: Path) -> None:
    from videomac.evaluate.compare import read_run

    config = FiguresConfig([material["run"]], tmp_path, evaluations=[material["eval"]])
    run(config)
    scores = sequence_scores(read_run(material["eval"]))
    (shown,) = json.loads((tmp_path / "fig4.json").read_text())
    assert sorted(scores) == ["scene0", "scene1", "scene2"]
    assert sorted(scores, key=lambda name: scores[name])[1] == shown["sequence"]
    assert shown["frames"] == [0, 1, 2, 3]
    assert np.mean(list(scores.values())) == pytest.approx(read_run(material["eval"]).numbers["J&F-Mean"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "--video", "nowhere.mp4"], "nowhere.mp4"),
        (["RUN", "--video", "VIDEO", "--frame_gap", "50"], "frames"),
        (["RUN", "nowhere"], "nowhere has no config.yaml"),
        (["EVAL"], "neither a run's folder"),
        (["RUN", "EVAL"], "holds no curve of a pre-training"),
        (["RUN", "--evaluations", "RUN"], "is not of an evaluation"),
        (["RUN", "--video", "VIDEO", "--mask_ratio", "0.99"], "visible"),
        (["RUN", "--masks", "0"], "masks must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(
    material: dict[str, Path], tmp_path: Path, capsys: Any, arguments: list[str], sentence: str
) -> None:
    places = {"RUN": material["run"], "EVAL": material["eval"], "VIDEO": material["video"]}
    with pytest.raises(SystemExit) as stopped:
        cli.main(["figures", *(str(places.get(word, word)) for word in arguments), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in error and error.count("\n") == 1


def test_figures_in_use_are_refused(material: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "fig4.png").touch()
    with pytest.raises(SystemExit):
        cli.main(["figures", str(material["run"]), "--out", str(tmp_path)])
    assert "already holds a run (fig4.png)" in capsys.readouterr().err
