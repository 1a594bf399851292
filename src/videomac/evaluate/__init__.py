"""Judge any backbone by label propagation on DAVIS, VIP and JHMDB.

The functions here are the commands `videomac eval ...`; everything heavy is imported when they are called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def davis(backbone: Any, *, data: str | Path, out: str | Path, **settings: Any) -> dict[str, float]:
    """Propagate the first mask of each DAVIS sequence with a backbone's features, and score J&F.

    Args:
        backbone: timm name, folder or file of weights, checkpoint, "raw-pixels", or a module or function that maps
            frames `[B, 3, H, W]` to feature maps `[B, C, h, w]`.
        data: folder in DAVIS layout.
        out: folder for the numbers, predictions and pictures.
        **settings: the other options of `EvalDavisConfig`, such as `protocol="crw"` or `stride=16`.

    Returns:
        J&F-Mean, J-Mean, J-Recall, J-Decay, F-Mean, F-Recall, F-Decay, fractions of 1.

    Raises:
        UserError: something is wrong with the data, the backbone or the out folder.
    """
    from videomac.evaluate.benchmarks.davis import run
    from videomac.evaluate.config import EvalDavisConfig

    return run(EvalDavisConfig(data=Path(data), backbone=backbone, out=Path(out), **settings))


def vip(backbone: Any, *, data: str | Path, out: str | Path, **settings: Any) -> dict[str, float]:
    """Propagate the body parts of the first annotated frame of each VIP video, and score mIoU.

    Args:
        backbone: as in `davis`.
        data: folder in VIP layout.
        out: folder for the numbers, predictions and pictures.
        **settings: the other options of `EvalVipConfig`.

    Returns:
        mIoU, a fraction of 1.

    Raises:
        UserError: something is wrong with the data, the backbone or the out folder.
    """
    from videomac.evaluate.benchmarks.vip import run
    from videomac.evaluate.config import EvalVipConfig

    return run(EvalVipConfig(data=Path(data), backbone=backbone, out=Path(out), **settings))


def jhmdb(backbone: Any, *, data: str | Path, out: str | Path, **settings: Any) -> dict[str, float]:
    """Propagate the 15 joints of the first frame of each JHMDB video, and score PCK.

    Args:
        backbone: as in `davis`.
        data: folder in JHMDB layout.
        out: folder for the numbers, predictions and pictures.
        **settings: the other options of `EvalJhmdbConfig`.

    Returns:
        PCK@0.1 to PCK@0.5, fractions of 1.

    Raises:
        UserError: something is wrong with the data, the backbone or the out folder.
    """
    from videomac.evaluate.benchmarks.jhmdb import run
    from videomac.evaluate.config import EvalJhmdbConfig

    return run(EvalJhmdbConfig(data=Path(data), backbone=backbone, out=Path(out), **settings))
