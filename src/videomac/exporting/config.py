"""The options of `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from videomac.errors import UserError
from videomac.utils.checks import check_values


@dataclass
class ExportConfig:
    """Write a pre-trained backbone for other tools, check the file, and report every tensor."""

    source: Path
    """Run folder, checkpoint (.ckpt), the authors' mac-*.pth, or exported folder or model.safetensors."""
    out: Path
    """Folder for the weights, their model card (README.md) and the report (export.json)."""

    command: ClassVar[str] = "export"

    format: Literal["timm", "state_dict", "onnx", "torch_export"] = "timm"
    """safetensors and config.json for timm; a plain state dict; the features as ONNX; or as a torch.export program."""
    which: Literal["online", "target"] = "online"
    """Which network of a pre-training run: the trained one, or its moving average."""
    evaluations: list[Path] | None = None
    """Folders that `videomac eval` wrote for this backbone; their numbers go onto the model card."""
    push_to_hub: str | None = None
    """Also upload weights, card and report to this repository (user/name) of the Hugging Face hub."""
    overwrite: bool = False
    """Replace an earlier export in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        check_values(self)
        self.source, self.out = Path(self.source), Path(self.out)
        self.evaluations = None if self.evaluations is None else [Path(folder) for folder in self.evaluations]
        source = self.source.parent if self.source.suffix == ".safetensors" else self.source
        if self.out.resolve() == source.resolve():
            raise UserError(f"--out {self.out} is the source itself: choose another folder")
