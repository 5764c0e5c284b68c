"""Images by description: a folder, a file or a named data set, with an optional slice, as one uint8 tensor.

    digits                      scikit-learn's digits, 16x16; included in the package
    fashion-mnist:train[:10000] the first 10,000 training images
    cifar10:test                any torchvision data set, by its name in lower case
    photos/                     a folder of images (flat, or a folder a class) or of WebDataset shards (`.tar`, `.cls`)
    images.npz[:500]            uint8 `x` (n, h, w), (n, h, w, c) or (n, c, h, w), optional `y`
    images.npy                  uint8 (n, c, h, w), memory-mapped; `turnmark pack` writes it

A named data set is searched in `$TURNMARK_DATA` (as `NAME-SPLIT.npz`, or as torchvision stores it), then in
`~/.cache/turnmark`, and downloaded there if it is missing. Fashion-MNIST is also read from Debian's package
`dataset-fashion-mnist`.
"""

from __future__ import annotations

import gzip
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ownership.encoders.images import as_uint8, check_images
from ownership.errors import DataError
from ownership.io.extras import require
from ownership.io.text import printable
from watermark_training.choices import OnBadImage
from watermark_training.image_files import read_images
from watermark_training.image_sources import is_shard

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Data:
    """Images and, if the source has them, labels."""

    name: str  # the description it was loaded from
    images: Tensor  # (n, c, h, w) uint8, c = 1 or 3
    labels: Tensor | None  # (n,) int64
    skipped: tuple[str, ...] = ()  # files that are not readable images and were left out

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only these images: torch would write the whole storage that they are a part of."""
        return _data, (self.name, _own(self.images), _own(self.labels), self.skipped)


def _own(x: Tensor | None) -> Tensor | None:
    return x if x is None or x.untyped_storage().nbytes() == x.nbytes else x.clone()


def _data(name: str, images: Tensor, labels: Tensor | None, skipped: tuple[str, ...]) -> Data:
    return Data(name=name, images=images, labels=labels, skipped=skipped)


_DESCRIPTION = re.compile(r"^(?P<source>.*?)(?::(?P<split>[a-z0-9_]+))?(?:\[(?P<start>\d*):(?P<stop>\d*)\])?$")


def load_data(description: str, *, size: int | None = None, on_bad_image: OnBadImage = "stop") -> Data:
    """Load images by description (see the module's docstring).

    Args:
        description: folder, file or name, followed by an optional `:split` and `[start:stop]`.
        size: side length to resize to; required for folders of mixed sizes.
        on_bad_image: for a file in a folder or shard that is not a readable image: stop with an error, or skip it.

    Raises:
        DataError: if the data does not exist or cannot be used.
    """
    match = _DESCRIPTION.match(description)
    whole = Path(description)
    if match is None or whole.exists():
        source, split, start, stop = description, None, "", ""
    else:
        source, split, start, stop = (match["source"], match["split"], match["start"] or "", match["stop"] or "")
    skipped: list[str] = []
    images, labels = _load(source, split, size, on_bad_image, skipped)
    low, high = int(start or 0), int(stop) if stop else len(images)
    if low >= high or high > len(images):
        raise DataError(
            f"{printable(description)}: the slice [{start}:{stop}] of {len(images)} images is empty or too long",
            f"at most [0:{len(images)}]",
        )
    images = images[low:high]
    if size is not None and images.shape[-2:] != (size, size):
        images = resize(images, size)
    check_images(images, DataError)
    labels = None if labels is None else labels[low:high]
    return Data(name=description, images=images, labels=labels, skipped=tuple(skipped))


def resize(images: Tensor, size: int) -> Tensor:
    """Return uint8 images `(n, c, h, w)` resized to `size` x `size`, bilinear, antialiased when shrinking."""
    x = F.interpolate(images.float() / 255, size=(size, size), mode="bilinear", antialias=size < max(images.shape[-2:]))
    return as_uint8(x)


def _load(
    source: str, split: str | None, size: int | None, on_bad_image: OnBadImage, skipped: list[str]
) -> tuple[Tensor, Tensor | None]:
    path = Path(source)
    if path.is_dir() and split is not None:
        path = path / split
    if split is not None and (path.is_file() or source.lower() == "digits"):
        raise DataError(f"{printable(source, 300)} has no split {printable(split)!r}", "leave it out, or give a slice")
    if path.is_dir() or is_shard(path.name):
        return read_images(path, size, on_bad_image=on_bad_image, skipped=skipped)
    if path.suffix == ".npy":
        return _npy(path), None
    if path.suffix == ".npz" or path.is_file():
        return _npz(path)
    name = source.lower().replace("_", "-")
    packed = Path(os.environ.get("TURNMARK_DATA", "")) / f"{name}-{split or 'train'}.npz"
    if packed.is_file():
        return _npz(packed)
    if name == "digits":
        return _digits()
    if name in ("fashion-mnist", "fashionmnist") and DEBIAN_FASHION.is_dir():
        return _fashion(DEBIAN_FASHION, split or "train")
    return _torchvision(source, split)


def _digits() -> tuple[Tensor, Tensor]:
    """1,797 handwritten digits of 8x8 pixels, doubled to 16x16 (scikit-learn, from the UCI repository)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.asarray(digits.images) / 16).float()[:, None]
    return resize(as_uint8(images), 16), torch.from_numpy(np.asarray(digits.target)).long()


def _fashion(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    stem = {"train": "train", "test": "t10k"}.get(split)
    if stem is None:
        raise DataError(f"fashion-mnist has no split {printable(split)!r}", "train or test")

    def read(name: str, skip: int) -> NDArray[np.uint8]:
        try:
            with gzip.open(folder / name) as f:
                return np.frombuffer(f.read(), np.uint8, offset=skip).copy()
        except (OSError, EOFError, ValueError) as e:
            raise DataError(f"{name} of fashion-mnist is damaged or missing", "install the data set again") from e

    images = read(f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return torch.from_numpy(images), torch.from_numpy(read(f"{stem}-labels-idx1-ubyte.gz", 8)).long()


def _npy(path: Path) -> Tensor:
    """Memory-mapped images: the system loads pages when they are used, and may drop them again."""
    if not path.is_file():
        raise DataError(f"data: {printable(path, 300)} does not exist", "check the path")
    try:
        stored = np.load(path, mmap_mode="c", allow_pickle=False)  # "c": writable for torch, never written back
    except (ValueError, OSError, EOFError) as e:
        raise DataError(f"{printable(path.name)} is not a readable .npy file", "write it with turnmark pack") from e
    if stored.dtype != np.uint8 or stored.ndim != 4:
        raise DataError(f"{printable(path.name)} is {stored.dtype} {stored.shape}", "uint8 (n, c, h, w)")
    return torch.from_numpy(stored)


def _npz(path: Path) -> tuple[Tensor, Tensor | None]:
    if not path.is_file():
        raise DataError(f"data: {printable(path, 300)} does not exist", "check the path")
    try:
        with np.load(path, allow_pickle=False) as stored:
            if "x" not in stored:
                raise DataError(f"{printable(path.name)} has no array x", "store uint8 images as x, labels as y")
            x, y = stored["x"], stored.get("y")
    except DataError:
        raise
    except Exception as e:  # zip, header and pickle errors alike
        raise DataError(f"{printable(path.name)} is not a readable .npz file", "store it with numpy.savez") from e
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise DataError(
            f"{printable(path.name)}: x is {x.dtype} {x.shape}", "uint8, (n, h, w), (n, h, w, c) or (n, c, h, w)"
        )
    if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "iu"):
        raise DataError(f"{printable(path.name)}: y is {y.dtype} {y.shape}", f"integers ({len(x)},)")
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[1] not in (1, 3) and x.shape[-1] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(x)), None if y is None else torch.from_numpy(y.astype(np.int64))


def _torchvision(name: str, split: str | None) -> tuple[Tensor, Tensor | None]:
    """Any torchvision image data set by its class name in any case, dashes optional."""
    require("torchvision")
    from torchvision import datasets

    by_name = {n.lower(): n for n in datasets.__all__}
    wanted = name.lower().replace("-", "").replace("_", "")
    if wanted not in by_name:
        raise DataError(
            f"data: {printable(name, 300)} is not a folder, a file or a known data set",
            "check the path, or use digits, fashion-mnist, cifar10, ... (torchvision's names)",
        )
    make: Callable[..., Any] = getattr(datasets, by_name[wanted])
    root = Path(os.environ.get("TURNMARK_DATA", Path.home() / ".cache" / "turnmark"))
    kwargs: list[dict[str, Any]] = [{"train": split != "test"}] if split in (None, "train", "test") else []
    kwargs += [{"split": split or "train"}]
    problem, takes = "", False  # whether it takes some of the arguments
    for arguments in kwargs:
        for download in (False, True):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    dataset = make(root=str(root), download=download, **arguments)
                return _collect(dataset)
            except TypeError:  # this data set takes other arguments
                break
            except Exception as e:  # torchvision, urllib and zip errors share no base
                problem, takes = str(e) or type(e).__name__, True
    if not takes:
        raise DataError(f"data set {printable(name)} has no split {printable(split or '')!r}", "train or test")
    raise DataError(
        f"data set {printable(name)} is not under {printable(root, 300)} and cannot be downloaded "
        f"({printable(problem.splitlines()[0] if problem else 'unknown reason')})",
        "download it with torchvision there, or set TURNMARK_DATA to the folder that holds it",
    )


def _collect(dataset: Any) -> tuple[Tensor, Tensor | None]:
    """The images of a torchvision data set as one tensor, from its array if it has one."""
    array = getattr(dataset, "data", None)
    labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if array is None:
        pictures = [np.asarray(dataset[i][0].convert("RGB")) for i in range(len(dataset))]
        if len({p.shape for p in pictures}) > 1:
            raise DataError("the images of this data set differ in size", "store them in one size first")
        array = np.stack(pictures)
        labels = [dataset[i][1] for i in range(len(dataset))]
    images = torch.as_tensor(np.asarray(array))
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2)
    return images.contiguous(), None if labels is None else torch.as_tensor(np.asarray(labels)).long()
