"""videomac: pre-train any timm ConvNet on unlabelled video.

The names below are the public API. They are imported when first used, so that `import videomac` and `videomac --help`
do not wait for PyTorch.

Our own backbones must be in timm's registry whenever both packages are imported, in whichever order, for then
`timm.create_model("local-dir:...")` opens an export that needs one of them. Registering imports timm, and timm imports
PyTorch: so if timm is not there yet, a hook on its import (`_RegisterWithTimm`) does it later.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from videomac import evaluate
    from videomac.classify.finetune import finetune
    from videomac.classify.probe import probe
    from videomac.errors import UserError
    from videomac.evaluate import metrics
    from videomac.evaluate.propagation import propagate
    from videomac.labeling.command import propagate_video
    from videomac.models.checkpoint import load_backbone
    from videomac.models.encoder import SparseEncoder
    from videomac.models.masking import random_mask
    from videomac.models.videomac import VideoMAC, VideoMACOutput
    from videomac.train.pretrain import pretrain

_HOME = {
    "SparseEncoder": "models.encoder",
    "UserError": "errors",
    "VideoMAC": "models.videomac",
    "VideoMACOutput": "models.videomac",
    "finetune": "classify.finetune",
    "load_backbone": "models.checkpoint",
    "pretrain": "train.pretrain",
    "probe": "classify.probe",
    "propagate": "evaluate.propagation",
    "propagate_video": "labeling.command",
    "random_mask": "models.masking",
}
_SUBPACKAGES = {"evaluate": "evaluate", "metrics": "evaluate.metrics"}

__all__ = [
    "SparseEncoder",
    "UserError",
    "VideoMAC",
    "VideoMACOutput",
    "__version__",
    "evaluate",
    "finetune",
    "load_backbone",
    "metrics",
    "pretrain",
    "probe",
    "propagate",
    "propagate_video",
    "random_mask",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"videomac.{_HOME[name]}"), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"videomac.{_SUBPACKAGES[name]}")
    raise AttributeError(f"module 'videomac' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _RegisterWithTimm(importlib.abc.MetaPathFinder):
    """Registers our own backbones as soon as somebody imports timm, and not before; then it is gone."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> Any:
        if fullname != "timm":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("timm")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: Any) -> None:
                execute(module)
                importlib.import_module("videomac.models.backbones")

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if "timm" in sys.modules:
    importlib.import_module("videomac.models.backbones")
else:
    sys.meta_path.insert(0, _RegisterWithTimm())
