"""Schedule and parameter groups against a reading of the recipes' text, and against timm's own groups."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from videomac import cli
from videomac.models import official
from videomac.train.optim import layer_decay_groups, layer_ids, learning_rate_at, parameter_groups, scaled_lr


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.token = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.wide = nn.ParameterDict({"bias": torch.zeros(2, 2)})
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def names(model: nn.Module, group: dict[str, object]) -> set[str]:
    chosen = {id(parameter) for parameter in group["params"]}  # type: ignore[attr-defined]
    return {name for name, parameter in model.named_parameters() if id(parameter) in chosen}


def test_groups_by_name() -> None:
    model = Small()
    decayed, spared = parameter_groups(model, 0.05)
    assert names(model, decayed) == {"convolution.weight", "token"}
    # A bias is spared whatever its shape; frozen parameters are in no group.
    assert names(model, spared) == {"convolution.bias", "norm.weight", "norm.bias", "wide.bias"}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)


def test_a_model_may_decay_small_parameters_after_all() -> None:
    class Exceptional(Small):
        def weight_decay_exceptions(self) -> set[str]:
            return {"norm.weight", "norm.bias"}

    model = Exceptional()
    decayed, spared = parameter_groups(model, 0.05)
    assert names(model, decayed) == {"convolution.weight", "token", "norm.weight", "norm.bias"}
    assert names(model, spared) == {"convolution.bias", "wide.bias"}


def test_linear_rule() -> None:
    assert scaled_lr(1e-3, 512) == pytest.approx(2e-3)
    assert scaled_lr(1e-3, 256) == 1e-3


def test_learning_rate_warms_up_and_falls_on_a_cosine() -> None:
    rates = [learning_rate_at(step, 100, 10, 2e-3, 1e-5) for step in range(102)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(2e-3)
    assert rates[55] == pytest.approx((2e-3 + 1e-5) / 2)
    assert rates[40] == pytest.approx(1e-5 + (2e-3 - 1e-5) * (1 + math.cos(math.pi * 30 / 90)) / 2)
    assert rates[100] == rates[101] == pytest.approx(1e-5)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate_at(0, 10, 0, 1.0) == 1.0


def test_a_run_shorter_than_its_warm_up_never_divides_by_zero() -> None:
    assert [learning_rate_at(step, 2, 4, 1.0) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1.0, 0.0]


# Layer decay ----------------------------------------------------------------------------------------------------------


CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "finetune").glob("*.yaml"))


def meta(name: str, **options) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options)


def single(depths: tuple[int, ...]) -> dict[str, int]:
    """The text, written out: "blocks get ids 1.., stem and each down-sampler share the id of the first block after"."""
    ids, block_id = {"stem.": 1}, 0
    for stage, depth in enumerate(depths):
        ids[f"stages.{stage}.downsample."] = block_id + 1
        for block in range(depth):
            block_id += 1
            ids[f"stages.{stage}.blocks.{block}."] = block_id
    return ids | {"head.": block_id + 1}


GROUPED_B = {
    **{"stem.": 0, "stages.0.": 1, "stages.1.": 2, "stages.2.downsample.": 3, "stages.3.": 12, "head.": 13},
    **{f"stages.2.blocks.{block}.": 3 + block // 3 for block in range(27)},
}
"""ConvNeXt's 12 parts of [3, 3, 27, 3] blocks: the first two stages, nine times three blocks, the last stage."""


@pytest.mark.parametrize(
    ("name", "grouping", "expected"),
    [
        ("convnextv2_tiny", "single", single((3, 3, 9, 3))),
        ("convnext_tiny_no_layer_scale", "single", single((3, 3, 9, 3))),
        ("convnextv2_atto", "single", single((2, 2, 6, 2))),
        ("convnextv2_base", "group", GROUPED_B),
    ],
)
def test_layer_ids_are_those_of_the_recipe(name, grouping, expected):
    model = meta(name)
    ids = layer_ids(model, grouping)
    assert ids.keys() == dict(model.named_parameters()).keys()
    for parameter, number in ids.items():
        (wanted,) = {value for prefix, value in expected.items() if parameter.startswith(prefix)}
        assert number == wanted, parameter
    assert max(ids.values()) == {"convnextv2_base": 13, "convnextv2_atto": 13}.get(name, 19)


@pytest.mark.parametrize("name", ["convnextv2_tiny", "convnext_tiny_no_layer_scale"])
def test_groups_of_the_tiny_networks_are_those_of_the_recipe(name):
    model = meta(name)
    groups = layer_decay_groups(model, weight_decay=0.05, layer_decay=0.9, grouping="single")
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(of) == len(list(model.parameters()))
    ids = single((3, 3, 9, 3))
    small = 0
    for parameter_name, parameter in model.named_parameters():
        group = of[id(parameter)]
        (layer,) = {value for prefix, value in ids.items() if parameter_name.startswith(prefix)}
        assert group["lr_scale"] == pytest.approx(0.9 ** (19 - layer)), parameter_name
        matrix = parameter_name.endswith("weight") and "norm" not in parameter_name and "grn" not in parameter_name
        matrix = matrix and parameter_name != "stem.1.weight" and not parameter_name.endswith("downsample.0.weight")
        assert group["weight_decay"] == (0.05 if matrix else 0.0), parameter_name
        small += not matrix
    grn = [parameter for name, parameter in model.named_parameters() if ".grn." in name]
    assert len(grn) == (36 if name == "convnextv2_tiny" else 0)  # timm calls them weight and bias
    assert all(of[id(parameter)]["weight_decay"] == 0 for parameter in grn)
    assert small > len(grn)
    assert not [name for name, _ in model.named_parameters() if name.endswith("gamma")]  # no layer scale


def test_layer_scale_does_not_decay():
    model = meta("convnext_tiny")
    groups = layer_decay_groups(model, weight_decay=0.05, layer_decay=0.9, grouping="single")
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    gammas = [parameter for name, parameter in model.named_parameters() if name.endswith(".gamma")]
    assert len(gammas) == 18 and all(decay[id(parameter)] == 0 for parameter in gammas)


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "vit_small_patch16_224"])
def test_other_networks_have_timms_groups(name):
    model = meta(name)
    exempt = getattr(model, "no_weight_decay", set)()
    timms = param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.7, no_weight_decay_list=exempt)
    ours = layer_decay_groups(model, weight_decay=0.1, layer_decay=0.7, grouping="single")

    def by_parameter(groups):
        return {id(p): (pytest.approx(g["lr_scale"]), g["weight_decay"]) for g in groups for p in g["params"]}

    assert by_parameter(ours) == by_parameter(timms)


def test_frozen_parameters_are_left_out_and_a_decay_of_1_scales_nothing():
    model = meta("test_convnext")
    model.stem.requires_grad_(False)
    groups = layer_decay_groups(model, weight_decay=0.1, layer_decay=1.0, grouping="single")
    assert {group["lr_scale"] for group in groups} == {1.0} and len(groups) > 2
    assert sum(len(group["params"]) for group in groups) == len([p for p in model.parameters() if p.requires_grad])


def test_norms_of_the_released_code_belong_to_the_block_before_them():
    ids = layer_ids(official.add_stage_norms(timm.create_model("test_convnext")), "single")
    last_blocks = [
        max(n for name, n in ids.items() if name.startswith(f"stages.{stage}.blocks.")) for stage in range(4)
    ]
    assert [ids[f"stage_norms.{stage}.weight"] for stage in range(4)] == last_blocks


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match="group_matcher"):
        layer_ids(torch.nn.Linear(2, 2), "single")


RECIPE = {
    **{"epochs": 300, "warmup": 40, "global_batch_size": 1024, "base_lr": 8e-4, "min_lr": 1e-6, "betas": (0.9, 0.999)},
    **{"weight_decay": 0.05, "layer_decay": 0.9, "layer_grouping": "single", "drop_path": 0.2, "mixup": 0.8},
    **{"cutmix": 1.0, "label_smoothing": 0.1, "auto_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.25},
    **{"image_size": 224, "crop_pct": 224 / 256, "ema_decay": 0.9999, "crop_scale": (0.08, 1.0)},
}
"""PyTorch's AdamW has eps 1e-8 by default, timm's Mixup prob 1, switch_prob .5 and mode batch."""
OTHERS = {
    "convnextv2_tiny": {},
    "convnext_tiny": {},
    "convnextv2_base": {
        **{"epochs": 100, "warmup": 20, "base_lr": 6.25e-4, "layer_decay": 0.6, "layer_grouping": "group"},
        "drop_path": 0.1,
    },
    "convnextv2_atto": {
        **{"epochs": 600, "warmup": 0, "base_lr": 2e-4, "weight_decay": 0.3, "mixup": 0, "cutmix": 0},
        **{"label_smoothing": 0.2, "drop_path": 0.1},
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_configs_are_the_recipes(name):
    config = cli.parse("finetune", ["--config", str(CONFIGS[0].with_stem(name))])
    values = {key: getattr(config, key) for key in RECIPE} | {"warmup": config.warmup(config.epochs)}
    assert values == RECIPE | OTHERS[name]


def test_every_config_parses():
    assert {path.stem for path in CONFIGS} == {*OTHERS, "cpu"}
    for path in CONFIGS:
        cli.parse("finetune", ["--config", str(path)])


def test_the_schedule_is_that_of_the_recipe():
    config = cli.parse("finetune", ["--config", str(CONFIGS[0].with_stem("convnextv2_tiny"))])
    steps = 1_281_167 // 1024
    peak = scaled_lr(config.base_lr, config.global_batch_size)
    assert peak == pytest.approx(3.2e-3)

    def rate(step: int) -> float:
        return learning_rate_at(step, 300 * steps, round(config.warmup(300) * steps), peak, config.min_lr)

    for step in (0, 1, 7 * steps + 3, 40 * steps - 1, 40 * steps, 40 * steps + 1, 170 * steps + 11, 300 * steps - 1):
        epoch = step / steps  # as a fraction, for each iteration
        if epoch < 40:
            expected = 3.2e-3 * epoch / 40
        else:
            expected = 1e-6 + (3.2e-3 - 1e-6) * (1 + math.cos(math.pi * (epoch - 40) / (300 - 40))) / 2
        assert rate(step) == pytest.approx(expected, rel=1e-9), step
