"""Folders of labelled images, through timm's pipeline, in an order and with crops that only the seed decides."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import torch
from jaxtyping import Float
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import posterize
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.datasets import ImageFolder

from videomac.classify.config import FinetuneConfig
from videomac.classify.network import Network
from videomac.data.loader import QuietLoader, TrainingData, leave_signals_to_the_main_process
from videomac.errors import UserError
from videomac.utils.seeding import mixed_seed, seeded

logger = logging.getLogger(__name__)
NO_LABEL = -1
_MAX_ATTEMPTS = 100


class ImageError(Exception):
    """An image cannot be read."""


class LabelledImage(TypedDict):
    """What one key gives; PyTorch's default collation stacks it to batches."""

    image: Float[Tensor, "3 height width"]
    """Normalised."""
    label: int
    """Index of the class; -1 for an image of the evaluation that cannot be read."""
    skipped: int
    """1 if another image stands in because this one could not be read, else 0."""


@dataclass(frozen=True)
class LabelledFolders:
    """The images of a data set, by path and class.

    Attributes:
        classes: names of the class folders, sorted; their order gives the labels.
        train: path and label of each training image.
        val: path and label of each image that is evaluated.
    """

    classes: list[str]
    train: list[tuple[str, int]]
    val: list[tuple[str, int]]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two runs on these images to be equal, wherever they lie."""
        names = hashlib.sha256()
        for path, label in [*self.train, *self.val]:
            folder, name = os.path.split(path)
            names.update(f"{label} {os.path.basename(folder)}/{name}\n".encode())
        images = len(self.train) + len(self.val)
        return {"images": images, "classes": len(self.classes), "names": names.hexdigest()}


def find_images(data: Path) -> LabelledFolders:
    """Find the images in `data/train/CLASS/` and `data/val/CLASS/`.

    Raises:
        UserError: a folder is missing, the two do not hold the same classes, or a class holds no image.
    """
    folders = {}
    for part in ("train", "val"):
        if not (data / part).is_dir():
            raise UserError(f"{data} has no folder {part}: images are expected in {data / part}/CLASS/")
        try:
            folders[part] = ImageFolder(str(data / part), allow_empty=True)
        except FileNotFoundError:
            raise UserError(
                f"{data / part} has no class folders: images are expected in {data / part}/CLASS/"
            ) from None
    train, val = folders["train"], folders["val"]
    if train.classes != val.classes:
        only = [
            f"only in {part}: {', '.join(sorted(names)[:5])}"
            for part, names in (
                ("train", set(train.classes) - set(val.classes)),
                ("val", set(val.classes) - set(train.classes)),
            )
            if names
        ]
        raise UserError(f"{data / 'train'} and {data / 'val'} hold different classes: {'; '.join(only)}")
    if len(train.classes) < 2:
        raise UserError(f"{data / 'train'} holds one class ({train.classes[0]}): there is nothing to tell apart")
    for part, folder in folders.items():
        filled = {label for _, label in folder.samples}
        empty = [name for label, name in enumerate(folder.classes) if label not in filled]
        if empty:
            raise UserError(
                f"{data / part / empty[0]} holds no image: add some, or remove the class from train and val"
            )
    return LabelledFolders(train.classes, train.samples, val.samples)


def read_image(path: str) -> Image.Image:
    """Read an image as RGB.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            picture: Image.Image = image.convert("RGB")
            return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: {error}") from error


class TrainImages(Dataset[LabelledImage]):
    """Training images; a key is (epoch, index), and everything random a function of it and the seed.

    An image that cannot be read is reported once in each worker, and another one, drawn from (seed, epoch, index),
    stands in for it.
    """

    def __init__(self, samples: list[tuple[str, int]], transform: Any, seed: int) -> None:
        self.samples, self.transform, self.seed = samples, transform, seed
        self._reported: set[str] = set()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> LabelledImage:
        """Read and transform the image with key (epoch, index).

        Raises:
            UserError: neither this image nor a hundred others can be read.
        """
        epoch, index = key
        wanted = index
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            path, label = self.samples[wanted]
            try:
                picture = read_image(path)
            except ImageError as error:
                problem = error
                if path not in self._reported:
                    self._reported.add(path)
                    logger.warning("skipped an unreadable image and used another: %s", error)
                wanted = mixed_seed(self.seed, epoch, index, attempt) % len(self)
                continue
            with seeded(mixed_seed(self.seed, epoch, index)):
                return {"image": self.transform(picture), "label": label, "skipped": int(attempt > 1)}
        raise UserError(f"{_MAX_ATTEMPTS} images in a row could not be read, check them; the last: {problem}")


class EvalImages(Dataset[LabelledImage]):
    """Images to evaluate, each once; one that cannot be read is reported once and has the label -1."""

    def __init__(self, samples: list[tuple[str, int]], transform: Any, size: int) -> None:
        self.samples, self.transform, self.size = samples, transform, size
        self._reported: set[str] = set()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> LabelledImage:
        """Read and transform one image."""
        path, label = self.samples[index]
        try:
            return {"image": self.transform(read_image(path)), "label": label, "skipped": 0}
        except ImageError as error:
            if path not in self._reported:
                self._reported.add(path)
                logger.warning("skipped an unreadable image: %s", error)
            return {"image": torch.zeros(3, self.size, self.size), "label": NO_LABEL, "skipped": 1}


def eval_transform(size: int, crop_pct: float, network: Network) -> Any:
    """Timm's evaluation: resize (bicubic), centre crop, normalise."""
    return create_transform(
        size, crop_pct=crop_pct, interpolation="bicubic", mean=network.mean, std=network.std, is_training=False
    )


def train_transform(config: FinetuneConfig, network: Network) -> Any:
    """Timm's training pipeline: random crop (bicubic) and flip, a policy such as RandAugment, random erasing."""
    transform = create_transform(
        config.image_size,
        is_training=True,
        scale=config.crop_scale,
        auto_augment=config.auto_augment,
        color_jitter=0.0,
        interpolation="bicubic",
        re_prob=config.random_erasing,
        re_mode="pixel",
        re_count=1,
        mean=network.mean,
        std=network.std,
    )
    for step in transform.transforms:
        for op in [*getattr(step, "ops", []), *chain(*getattr(step, "policy", []))]:
            if op.aug_fn is posterize:
                op.aug_fn = _posterize_at_least_one_bit
    return transform


def _posterize_at_least_one_bit(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Timm's posterizing, which asks for 0 bits at the strongest level; Pillow once painted black and now refuses."""
    posterized: Image.Image = posterize(image, max(1, bits))  # type: ignore[no-untyped-call]
    return posterized


def eval_loader(dataset: EvalImages, *, batch_size: int, workers: int, rank: int = 0, world_size: int = 1) -> Any:
    """Every image once, over all processes together, in their order."""
    return QuietLoader(
        Subset(dataset, range(rank, len(dataset), world_size)),
        batch_size=batch_size,
        num_workers=workers,
        worker_init_fn=leave_signals_to_the_main_process,
        pin_memory=torch.cuda.is_available(),
    )


class ClassificationData(TrainingData):
    """The images of a fine-tuning run, in the order in which the run takes them.

    Args:
        config: the options.
        folders: the images.
        network: tells how pixels are normalised.

    Raises:
        UserError: too few images for one batch, or an augmentation policy that timm does not know.
    """

    def __init__(self, config: FinetuneConfig, folders: LabelledFolders, network: Network) -> None:
        try:
            transform = train_transform(config, network)
        except (AssertionError, KeyError, ValueError) as error:
            raise UserError(f"auto_augment {config.auto_augment!r} is no policy of timm: {error!r}") from error
        self.classes = folders.classes
        self.train = TrainImages(folders.train, transform, config.seed)
        self.val = EvalImages(
            folders.val, eval_transform(config.image_size, config.crop_pct, network), config.image_size
        )
        super().__init__(
            self.train,
            len(self.train),
            config,
            identity=folders.identity,
            unit="images",
            sample_bytes=12 * config.image_size**2,
        )

    def val_loader(self, rank: int, world_size: int) -> Any:
        """The share of one process of the images to evaluate."""
        size = min(self.micro_batch(world_size), 256)
        return eval_loader(
            self.val, batch_size=size, workers=self.num_workers(world_size), rank=rank, world_size=world_size
        )
