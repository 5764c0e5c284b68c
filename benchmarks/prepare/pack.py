"""Pack CIFAR-10, CIFAR-100 and Tiny-ImageNet from mosaics and JPEG archives into the `.npz` files `load_data` reads.

    python -m benchmarks.prepare.pack FOLDER --out runs/data     # then: TURNMARK_DATA=runs/data python -m ...

FOLDER holds `cifar10-webp/`, `cifar100-webp/` (mosaics of 50 x 50 images, `SPLIT-labels.npy`) and
`tinyimagenet-val-jpeg.npz`. With the data sets from torchvision, only Tiny-ImageNet needs this.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

TILES = 50
SIDE = 32


def mosaics(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images `(n, 32, 32, 3)` and labels `(n,)` of one split."""
    labels = np.load(folder / f"{split}-labels.npy")
    images = []
    for i in range(len(labels) // TILES**2):
        tile = np.asarray(Image.open(folder / f"{split}-{i:02d}.webp").convert("RGB"))
        cells = tile.reshape(TILES, SIDE, TILES, SIDE, 3).transpose(0, 2, 1, 3, 4)
        images.append(cells.reshape(TILES**2, SIDE, SIDE, 3))
    return np.concatenate(images), labels


def jpegs(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return Tiny-ImageNet's images `(n, 64, 64, 3)` and labels `(n,)`."""
    stored = np.load(file)
    ends = np.cumsum(stored["length"].astype(np.int64))
    starts = np.concatenate([[0], ends[:-1]])
    images = [
        np.asarray(Image.open(io.BytesIO(stored["jpeg"][a:b].tobytes())).convert("RGB"))
        for a, b in zip(starts, ends, strict=True)
    ]
    return np.stack(images), stored["label"]


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/data"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, split in (("cifar10", "train"), ("cifar10", "test"), ("cifar100", "test")):
        x, y = mosaics(arguments.folder / f"{name}-webp", split)
        np.savez(arguments.out / f"{name}-{split}.npz", x=x, y=y)
        print(f"{name}-{split}.npz", x.shape)
    x, y = jpegs(arguments.folder / "tinyimagenet-val-jpeg.npz")
    np.savez(arguments.out / "tiny-imagenet-val.npz", x=x, y=y)
    print("tiny-imagenet-val.npz", x.shape)


if __name__ == "__main__":
    main()
