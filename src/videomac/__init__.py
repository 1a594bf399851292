"""videomac: pre-train any timm ConvNet on unlabelled video."""

__version__ = "0.1.0"
