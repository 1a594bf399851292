import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from videomac import cli
from videomac.train.config import PretrainConfig

REQUIRED = ["--data", "videos", "--backbone", "resnet18", "--out", "out"]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return (exit_.value.code or 0, *capsys.readouterr())


def test_help_lists_every_command(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in out and command.help in out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_option_of_every_command_is_explained(capsys, name):
    status, out, _ = run(capsys, *name.split(), "--help")
    config = cli._load(cli.COMMANDS[name].config)
    assert status == 0
    out = " ".join(out.split())
    for option in fields(config):
        required = option.default is MISSING and option.default_factory is MISSING
        if not (required and cli.COMMANDS[name].positional):
            assert f"--{option.name} " in out
    if config is PretrainConfig:
        assert "Distance between the two frames of a pair: a number of frames, or a time such as 40ms. (default" in out


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_help_does_not_wait_for_torch(name):
    code = (
        "import sys; from videomac import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'timm', 'lightning', 'av'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code, *name.split(), "--help"], check=True, stdout=subprocess.DEVNULL)


def test_flags_become_the_config():
    config = cli.parse("pretrain", [*REQUIRED, "--image_size", "[96,320]", "--resume", "--norm_pix_loss", "false"])
    assert config.size == (96, 320) and config.resume and not config.norm_pix_loss
    config = cli.parse("pretrain", [*REQUIRED, "--trainer.accelerator", "cpu", "--devices", "2", "--seed=3"])
    assert config.trainer == {"accelerator": "cpu"} and config.devices == 2 and config.seed == 3


def test_required_options_of_some_commands_are_written_without_flags():
    assert cli.parse("inspect", ["resnet18"]).name == "resnet18"
    config = cli.parse("compare", ["runs/a", "runs/b", "--paper", "false"])
    assert config.runs == [Path("runs/a"), Path("runs/b")] and not config.paper


def test_a_list_is_written_as_words():
    required = ["--data", "davis", "--backbone", "resnet18", "--out", "out"]
    assert cli.parse("eval davis", [*required, "--sequences", "cow", "goat", "--topk", "5"]).sequences == [
        "cow",
        "goat",
    ]
    assert cli.parse("eval davis", ["--sequences", "cow", *required]).sequences == ["cow"]
    assert cli.parse("eval davis", required).sequences is None


def test_a_yaml_file_gives_options_and_flags_override_it(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("data: videos\nbackbone: resnet18\nout: out\nepochs: 7\nimage_size: [96, 128]\n")
    config = cli.parse("pretrain", ["--config", str(file), "--epochs", "8"])
    assert config.epochs == 8 and config.size == (96, 128)
    status, printed, _ = run(capsys, "pretrain", "--config", str(file), "--print_config")
    assert status == 0 and "epochs: 7" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pretrian"], "unknown command 'pretrian'; did you mean 'pretrain'?"),
        (["eval", "davsi"], "unknown command 'eval davsi'; did you mean 'eval davis'?"),
        (["compare"], "missing runs"),
        (["inspect", "resnet18", "resnet50"], "unexpected argument 'resnet50'"),
        (["pretrain", *REQUIRED, "--mask-ration", "0.5"], "unknown option --mask-ration; did you mean --mask_ratio?"),
        (["pretrain", *REQUIRED, "--epoch", "5"], "unknown option --epoch; did you mean --epochs?"),
        (["pretrain", *REQUIRED, "videos"], "unexpected argument 'videos'"),
        (["pretrain", "--data", "videos"], "missing --backbone, --out"),
        (["pretrain", *REQUIRED, "--base_lr", "fast"], "base_lr must be a number, but is 'fast'"),
        (["pretrain", *REQUIRED, "--base_lr"], "--base_lr: expected one argument"),
        (["pretrain", *REQUIRED, "--precision", "16"], "precision must be one of 32-true, bf16-mixed"),
        (["pretrain", *REQUIRED, "--image_size", "[1,2,3]"], "image_size must be a whole number or ["),
        (["pretrain", *REQUIRED, "--devices", "all"], "devices must be a whole number or one of auto"),
        (["pretrain", *REQUIRED, "--trainer", "3"], "trainer must be a mapping"),
        (["pretrain", *REQUIRED, "--mask_ratio", "1"], "mask_ratio must be above 0 and below 1"),
        (["pretrain", "--config", "nowhere.yaml"], "there is no file nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(capsys, arguments, sentence):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == ""
    assert sentence in err and err.startswith("videomac: error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data: videos\nmask_ration: 0.5\n", "unknown key 'mask_ration' in {file}; did you mean mask_ratio?"),
        ("data: [videos\n", "{file} is not valid YAML"),
        ("- data\n- out\n", "{file} must hold lines such as"),
        ("gamma: strong\n", "gamma must be a number, but is 'strong'"),
    ],
)
def test_a_mistake_in_a_yaml_file_names_the_file_or_key(tmp_path, capsys, text, sentence):
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    status, _, err = run(capsys, "pretrain", *REQUIRED, "--config", str(file))
    assert status == 2
    assert sentence.format(file=file) in err and err.count("\n") == 1


def test_ctrl_c_is_one_line_and_status_130(capsys, monkeypatch):
    def interrupted(config):
        raise KeyboardInterrupt("stopped at step 3")

    monkeypatch.setattr(
        cli, "_load", lambda location, load=cli._load: load(location) if "Config" in location else interrupted
    )
    status, _, err = run(capsys, "pretrain", *REQUIRED)
    assert status == 130 and err.strip() == "videomac: stopped at step 3"


def failing_with(monkeypatch, error):
    def fail(config):
        raise error

    monkeypatch.setattr(cli, "_load", lambda location, load=cli._load: load(location) if "Config" in location else fail)


def test_what_nobody_foresaw_is_one_sentence_with_a_log_and_status_1(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing_with(monkeypatch, ZeroDivisionError("division by zero"))
    status, out, err = run(capsys, "pretrain", *REQUIRED)
    (log,) = tmp_path.glob("videomac-*.log")
    assert status == 1 and out == "" and err.count("\n") == 1 and err.startswith("videomac: bug: ")
    assert str(log) in err and "ZeroDivisionError: division by zero" in err and "please report it" in err
    assert "Traceback" in log.read_text() and "pretrain --data videos" in log.read_text()


def test_what_the_machine_lacks_is_status_2(capsys, monkeypatch):
    failing_with(monkeypatch, MemoryError())
    status, _, err = run(capsys, "pretrain", *REQUIRED)
    assert status == 2 and "memory" in err and err.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"], ["compare", "."]])
def test_a_reader_that_has_gone_is_no_complaint(words):
    code = "import sys, time; time.sleep(0.2); from videomac import cli; cli.main(sys.argv[1:])"
    if words[0] == "compare":  # what it prints comes in many pieces
        code = (
            "import sys; from videomac import cli\n"
            "cli._load = lambda where, load=cli._load: load(where) if 'Config' in where else (\n"
            "    lambda config: [print('x' * 99, flush=True) for _ in range(99999)])\n"
            "cli.main(sys.argv[1:])"
        )
    started = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started.stdout.close()
    said = started.stderr.read()
    started.stderr.close()
    assert started.wait() == 141 and said == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", ""], "--out is empty"),
        (["--out="], "--out is empty"),
        (["--data", ""], "--data is empty"),
        (["--base_lr", ".nan"], "base_lr must be finite, but is nan"),
        (["--base_lr", "1e308"], "base_lr must lie between"),
        (["--betas", "[.nan,1]"], "betas must be finite"),
        (["--betas", "[0.9,1.5]"], "betas must be at least 0 and below 1"),
        (["--image_size", "1000000"], "image_size must be at most 8192 pixels"),
        (["--decoder_width", "100000"], "decoder_width 100000 and decoder_depth 1 takes"),
        (["--patch_size", "-32"], "patch_size must be at least 1"),
        (["--trainer.max_steps", "3"], "trainer.max_steps cannot be given"),
        (["--out", "a" * 300], "out must have at most"),
        (["--backbone", "x" * 10**6], "too long"),
    ],
)
def test_values_that_nothing_can_be_done_with_are_refused(capsys, arguments, sentence):
    status, out, err = run(capsys, "pretrain", *REQUIRED, *arguments)
    assert status == 2 and out == "" and sentence in err and err.count("\n") == 1 and len(err) < 500


def test_an_out_folder_that_cannot_be_one_is_refused_before_anything(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = run(capsys, "demo", "--out", str(tmp_path / "file" / "run"))
    assert status == 2 and "is a file" in err
    config = tmp_path / "config.yaml"
    config.write_text("data: videos\nbackbone: resnet18\nout: ''\n")
    status, _, err = run(capsys, "pretrain", "--config", str(config))
    assert status == 2 and "out must not be empty" in err
    config.write_text("a: &a [*a]")
    status, _, err = run(capsys, "pretrain", "--config", str(config))
    assert status == 2 and "anchors and aliases" in err
