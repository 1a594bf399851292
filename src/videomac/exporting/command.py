"""`videomac export`: a pre-trained backbone as a file that other tools read, with a report of every tensor."""

from __future__ import annotations

import json
from typing import Any

from videomac.config import save_config
from videomac.errors import UserError
from videomac.evaluate.compare import read_run
from videomac.exporting.config import ExportConfig
from videomac.exporting.formats import ONNX_PACKAGES, WEIGHTS, require_packages, write
from videomac.exporting.hub import push
from videomac.exporting.model_card import find_training, model_card
from videomac.exporting.report import describe, format_report
from videomac.exporting.source import read_source, without_stage_norms
from videomac.utils.run_dir import prepare_out_dir

OWNED = ("config.yaml", "export.json", "README.md", "config.json", *WEIGHTS.values())
TOLERANCE = 1e-4
"""Largest difference between the features of the written file and of the network, relative to the largest feature."""


def run(config: ExportConfig) -> dict[str, Any]:
    """Write the backbone, open the file again and compare, and report what was and was not taken over.

    Returns:
        what `export.json` holds.

    Raises:
        UserError: an unusable source, a missing package, an out folder in use, a network that the format cannot hold,
            or a hub that refuses.
    """
    if config.format == "onnx":
        require_packages(*ONNX_PACKAGES)
    source = read_source(config.source, config.which)
    if config.format in ("timm", "state_dict"):
        source = without_stage_norms(source)
    evaluations = [read_run(folder) for folder in config.evaluations or []]  # refused before anything is written
    prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
    save_config(config)
    file = config.out / WEIGHTS[config.format]
    difference = write(config.format, source, file)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{file} gives features that differ by {difference:.1e} from those of {source.name}: do not use it, and "
            "take --format timm"
        )
    report = describe(config, source, file, difference)
    (config.out / "export.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    card = model_card(report, find_training(config.source), evaluations)
    (config.out / "README.md").write_text(card, encoding="utf-8")
    print(format_report(report, config.out))
    if config.push_to_hub is not None:
        print(f"pushed to {push(config.out, config.push_to_hub)}")
    return report
