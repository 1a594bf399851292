import re
from dataclasses import fields
from pathlib import Path

import pytest

from videomac import cli
from videomac.config import FREE_ON_RESUME, as_plain, as_size, changed_keys, save_config
from videomac.errors import UserError
from videomac.train.config import PretrainConfig
from videomac.train.optim import scaled_lr


def config(**options) -> PretrainConfig:
    return PretrainConfig(**{"data": "videos", "backbone": "resnet18", "out": "out", **options})


def test_the_defaults_are_the_papers():
    c = config()
    assert (c.size, c.mask_ratio, c.symmetric, c.frame_gap) == ((224, 224), 0.75, True, 1)
    assert (c.decoder_depth, c.decoder_width, c.gamma, c.norm_pix_loss) == (1, 512, 1.0, True)
    assert (c.augmentation, c.crop_scale) == ("spatial", (0.2, 1.0))
    assert c.base_lr * c.global_batch_size / 256 == pytest.approx(2e-3)
    assert (c.global_batch_size, c.betas, c.weight_decay, c.epochs, c.warmup(100)) == (512, (0.9, 0.95), 0.05, 100, 10)
    assert (c.momentum, c.target_gradient, c.preset) == (0.996, False, "paper")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_ratio": 1}, "mask_ratio"),
        ({"mask_ratio": 0}, "mask_ratio"),
        ({"image_size": (224,)}, "image_size"),
        ({"image_size": 0}, "image_size"),
        ({"crop_scale": (1.0, 0.2)}, "crop_scale"),
        ({"frame_gap": 0}, "frame_gap"),
        ({"frame_gap": "40"}, "or a time such as 40ms, but is '40'"),
        ({"out": "s3://bucket/run"}, "out is s3://bucket/run, and URLs are not read"),
        ({"epochs": 0}, "epochs"),
        ({"hours": 0}, "hours"),
        ({"devices": 0}, "devices"),
        ({"epochs": 5, "warmup_epochs": 6}, "warmup_epochs"),
        ({"drop_path": 1.5}, "drop_path"),
        ({"resume": True, "overwrite": True}, "resume and overwrite"),
        ({"base_lr": float("nan")}, "base_lr must be finite"),
        ({"betas": (0.9, 1.0)}, "betas must be at least 0 and below 1"),
        ({"image_size": 10**6}, "image_size must be at most 8192 pixels"),
        ({"decoder_width": 100_000}, "decoder_width 100000 and decoder_depth 1 takes"),
        ({"decoder_depth": 100_000}, "decoder_depth must be at most 256"),
        ({"held_out": 10**6}, "held_out must lie between 0 and 1024"),
        ({"patch_size": -32}, "patch_size must be at least 1"),
        *(
            ({"output_stride": n}, f"output_stride must be one of 32, 16, 8 or null, but is {n}$")
            for n in (1, 12, 64, -8)
        ),
        ({"trainer": {"max_steps": 3}}, "trainer.max_steps cannot be given"),
        ({"online_loss": False, "consistency_loss": False}, "nothing would train"),
    ],
)
def test_what_cannot_work_is_refused_by_name(options, words):
    with pytest.raises(UserError, match=words):
        config(**options)


@pytest.mark.parametrize("stride", ["1", "12", "64", "-8"])
def test_a_wrong_output_stride_is_one_sentence_on_the_command_line(stride: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["pretrain", "--data=v", "--backbone=resnet18", "--out=o", f"--output_stride={stride}"])
    assert ended.value.code == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert re.fullmatch(f"videomac: error: output_stride must be one of 32, 16, 8 or null, but is '{stride}'", sentence)


def test_the_help_shows_the_output_stride_with_the_method(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    method = capsys.readouterr().out.lower().partition("\nmethod")[2].partition("\noptimisation")[0]
    assert "--output_stride" in method and "32, 16 or 8" in method and "--patch_size" in method


def test_a_short_run_warms_up_for_a_tenth():
    assert config(epochs=30).warmup(30) == 3
    assert config(epochs=800).warmup(800) == 10
    assert config(epochs=30, warmup_epochs=1).warmup(30) == 1


def test_image_size_is_height_and_width():
    assert as_size(96) == (96, 96)
    assert config(image_size=[160, 224]).size == (160, 224)


def test_the_saved_config_is_read_back_as_the_same_run(tmp_path: Path):
    before = config(image_size=(160, 224), hours=1.5, trainer={"accelerator": "cpu"}, overwrite=True, out=tmp_path)
    save_config(before)
    assert changed_keys(before, tmp_path) == []
    assert "overwrite: false" in (tmp_path / "config.yaml").read_text()


def test_only_keys_that_change_the_numbers_are_named(tmp_path: Path):
    save_config(config(out=tmp_path))
    assert changed_keys(config(resume=True, workers=0, out="moved", save_steps=3), tmp_path) == []
    assert changed_keys(config(resume=True, seed=1, gamma=0.5), tmp_path) == ["gamma", "seed"]
    assert set(as_plain(config())) > FREE_ON_RESUME


def test_an_unreadable_config_is_an_error_that_names_the_file(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("data: [")
    with pytest.raises(UserError, match=r"config\.yaml"):
        changed_keys(config(), tmp_path)


CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "pretrain").glob("*.yaml"))


def test_there_is_a_config_for_every_backbone_of_the_paper():
    backbones = {cli.parse("pretrain", ["--config", str(path)]).backbone for path in CONFIGS}
    assert backbones == {
        *("resnet18", "resnet50", "convnextv2_tiny", "convnextv2_small", "convnextv2_small_isotropic"),
        "convnext_tiny_no_layer_scale",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses_and_its_model_can_be_built(path: Path):
    from videomac.train.pretrain import build_model

    config = cli.parse("pretrain", ["--config", str(path)])
    assert config.base_lr * config.global_batch_size / 256 in (2e-3, 1e-3)
    assert path.stem in config.out.name
    model = build_model(config)
    grid = 14 if "isotropic" in path.stem else 7
    assert model.patch_size * grid == 224


def test_the_readme_of_the_configs_names_every_file_and_only_options_that_exist():
    readme = (CONFIGS[0].parents[1] / "README.md").read_text()
    assert all(f"`{path.stem}`" in readme for path in CONFIGS)
    assert set(re.findall(r"--(\w+)", readme)) <= {field.name for field in fields(PretrainConfig)} | {"config"}


def test_the_small_recipe_fills_in_what_is_not_given():
    small = config(recipe="small")
    assert (small.size, small.global_batch_size, small.steps, small.epochs) == ((128, 128), 32, 2760, None)
    assert scaled_lr(small.base_lr, small.global_batch_size) == pytest.approx(1.5e-3) and small.momentum == 0.98
    given = config(recipe="small", image_size=64, epochs=3, momentum=0.9)
    assert (given.size, given.global_batch_size, given.steps, given.epochs) == ((64, 64), 32, None, 3)
    assert given.momentum == 0.9
    paper = config()
    assert (paper.size, paper.global_batch_size, paper.steps, paper.epochs) == ((224, 224), 512, None, 100)


@pytest.mark.parametrize(
    "options",
    [{}, {"recipe": "small"}, {"recipe": "small", "epochs": 2}, {"steps": 7}, {"frame_gap": "40ms"}, {"frame_gap": 3}],
)
def test_a_stored_config_reads_back_as_it_was(tmp_path, options):
    before = config(out=tmp_path, **options)
    save_config(before)
    assert changed_keys(before, tmp_path) == []
    parsed = cli.parse("pretrain", ["--config", str(tmp_path / "config.yaml")])
    assert parsed == before


@pytest.mark.parametrize(("word", "value"), [("3", 3), ("40", 40), ("40ms", "40ms"), ("33.4ms", "33.4ms")])
def test_a_gap_on_the_command_line_is_frames_or_a_time(word, value):
    words = ["--data", "videos", "--backbone", "resnet18", "--out", "out", "--frame_gap", word]
    assert cli.parse("pretrain", words).frame_gap == value
    with pytest.raises(UserError, match=r"frame_gap must be a number of frames, at least 1, or a time such as 40ms"):
        cli.parse("pretrain", [*words, "--frame_gap", "40 s"])


def test_null_is_what_the_recipe_says(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("data: videos\nbackbone: resnet18\nout: out\nepochs: null\nsteps: null\nimage_size: null\n")
    parsed = cli.parse("pretrain", ["--config", str(file)])
    assert (parsed.epochs, parsed.steps, parsed.size) == (100, None, (224, 224))


def test_epochs_and_steps_exclude_each_other():
    with pytest.raises(UserError, match="epochs and steps exclude each other"):
        config(epochs=3, steps=20)
    with pytest.raises(UserError, match="steps must be at least 1"):
        config(steps=0)
