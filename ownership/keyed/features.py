"""What the invariant map is made of: features of an image, as it is and averaged over its rotations.

They are those of a random network that the key draws, or those of an encoder that the owner names before the key
exists. Every encoder represents the leading directions of what a trained encoder sees, so that surrogates learn a
watermark in these even where they see other views of an image than the victim did.

The features of an encoder are computed once for the whole pool, and the commitment of the key names their digest: the
key could not be fitted to them, nor they to the key. The test uses these numbers alone; training needs the encoder, for
the features of its own images.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ownership.encoders.images import EncoderLike, as_input, three_channels
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.files import read_bytes, write_bytes
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.keyed.key import Features, Key
from ownership.watermark import TURN, rotate

N_ROTATIONS = 8
"""Rotations of an image that features are averaged over, the image itself included."""
BATCH = 256
"""Images whose features are computed at once."""
DIGEST_BYTES = 32
POOL_FILE, ENCODER_FILE = "pool_features.safetensors", "feature_encoder"
"""Files of a key folder: the features of the whole pool, and the encoder, whose file keeps its suffix."""

FeatureSource = Callable[[Tensor], Tensor]
"""Images `(n, c, h, w)` float in `[0, 1]` -> features `(n, 2, k)`: of the images, and averaged over their rotations."""


def over_rotations(images: Tensor, features: Callable[[Tensor], Tensor]) -> Tensor:
    """Return features `(n, 2, k)`: of the images `(n, c, h, w)`, and averaged over their `N_ROTATIONS` rotations."""
    first = features(images)
    total = first
    for i in range(1, N_ROTATIONS):
        angles = torch.full((len(images),), TURN * i / N_ROTATIONS, device=images.device)
        total = total + features(rotate(images, angles))
    return torch.stack([first, total / N_ROTATIONS], 1)


@dataclass(frozen=True, eq=False, slots=True)
class EncoderSource:
    """The representations of an encoder, scaled to length 1, as features.

    Attributes:
        encoder: the encoder; a module is moved to the device of the images.
    """

    encoder: EncoderLike

    def __call__(self, images: Tensor) -> Tensor:
        """Return features `(n, 2, d)` float32 of images `(n, c, h, w)` in `[0, 1]`."""
        return over_rotations(three_channels(images.float()), self._represent)

    def _represent(self, images: Tensor) -> Tensor:
        module = self.encoder if isinstance(self.encoder, nn.Module) else None
        if module is not None:
            module.eval().to(images.device)
        with torch.no_grad():
            found = self.encoder(images.contiguous() if module is not None else images.cpu().contiguous())
        return F.normalize(found.float().to(images.device), dim=1)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ProbeFeatures:
    """The features of a key's probes, of an encoder that its commitment names.

    Attributes:
        rows: `(n, 2, d)` float16, one row a probe, in the order of the probes.
        digests: SHA-256 of the row of each image of the pool, 32 bytes each.
        encoder: file of the encoder, which training needs; None where only the test is computed.
    """

    rows: Tensor
    digests: bytes
    encoder: Path | None = None

    def check(self, key: Key) -> None:
        """Check that the rows are those of the images that the key draws from its pool.

        Raises:
            ClaimIntegrityError: If the digests are not those that it was committed to, or a row is another one.
        """
        stated, indices = key.features, key.probe_indices()
        shape = (len(indices), 2, 0 if stated is None else stated.length)
        whole = len(self.digests) == DIGEST_BYTES * key.pool.images and tuple(self.rows.shape) == shape
        if stated is None or not whole or hashlib.sha256(self.digests).hexdigest() != stated.sha256:
            raise ClaimIntegrityError("key: the features are not those that it was committed to", "they were changed")
        drawn = [self.digests[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i in indices]
        if b"".join(drawn) != digests_of_features(self.rows):
            raise ClaimIntegrityError("the features of the probes are not those of the pool: they were edited")

    def to_bytes(self) -> bytes:
        """Return rows and digests as a safetensors file."""
        return save({"rows": self.rows, "digests": torch.frombuffer(bytearray(self.digests), dtype=torch.uint8)})

    @classmethod
    def from_bytes(cls, data: bytes, encoder: Path | str | None = None) -> ProbeFeatures:
        """Return what `to_bytes` returned; `check` compares it with the key.

        Raises:
            SafetensorError, KeyError, ValueError: If it is malformed.
        """
        tensors = load(data)
        rows, digests = tensors["rows"], tensors["digests"]
        if rows.dtype != torch.float16 or rows.ndim != 3 or digests.dtype != torch.uint8:
            raise ValueError("rows are float16, digests are bytes")
        if not rows.isfinite().all():
            raise ValueError("not finite")
        return cls(rows=rows, digests=digests.numpy().tobytes(), encoder=None if encoder is None else Path(encoder))


def digests_of_features(rows: Tensor) -> bytes:
    """Return the SHA-256 of each row of features `(n, 2, d)` float16, one after the other, 32 n bytes."""
    return b"".join(hashlib.sha256(row.contiguous().numpy().tobytes()).digest() for row in rows)


@dataclass(frozen=True, eq=False, slots=True)
class PoolFeatures:
    """An encoder's features of all images of a pool.

    Attributes:
        rows: `(n, 2, d)` float16.
        suffix: of the encoder's file, such as ".onnx".
        data: content of that file.
    """

    rows: Tensor
    suffix: str
    data: bytes

    @classmethod
    def compute(
        cls, images: Tensor, encoder: EncoderLike, file: Path | str, progress: Progress = silent
    ) -> PoolFeatures:
        """Return the features of an encoder.

        Args:
            images: `(n, c, h, w)` uint8, the images of the pool.
            encoder: the encoder.
            file: its file.
            progress: called after every batch.

        Raises:
            ClaimError: if the encoder gives anything but finite vectors.
        """
        source, parts, batches = EncoderSource(encoder), [], math.ceil(len(images) / BATCH)
        for i, part in enumerate(torch.split(images, BATCH)):
            parts.append(source(as_input(part)).half().cpu())
            progress("computing features", i + 1, batches)
        rows = torch.cat(parts)
        if rows.ndim != 3 or not rows.isfinite().all():
            raise ClaimError("the feature encoder gives no finite vectors", "choose another one")
        return cls(rows, Path(file).suffix, read_bytes(Path(file), ClaimError, "feature encoder"))

    @property
    def named(self) -> Features:
        """Return what a commitment says of them."""
        digest = hashlib.sha256(digests_of_features(self.rows)).hexdigest()
        return Features(sha256=digest, length=self.rows.shape[2], encoder_sha256=hashlib.sha256(self.data).hexdigest())

    def save(self, folder: Path | str) -> None:
        """Write rows and encoder into a key folder, mode 0600: the encoder may be a checkpoint of the owner's own."""
        folder = Path(folder)
        write_bytes(folder / POOL_FILE, save({"rows": self.rows}), secret=True)
        write_bytes(folder / f"{ENCODER_FILE}{self.suffix}", self.data, secret=True)

    @classmethod
    def load(cls, folder: Path | str) -> PoolFeatures | None:
        """Return what `save` wrote; None if a key folder holds no features.

        Raises:
            ClaimError: If a file is missing or damaged.
        """
        folder = Path(folder)
        if not (folder / POOL_FILE).is_file():
            return None
        file = encoder_file(folder)
        if file is None:
            raise ClaimError(f"{printable(folder, 300)} lacks its feature encoder", "restore the original")
        try:
            rows = load(read_bytes(folder / POOL_FILE, ClaimError, "features"))["rows"]
        except (SafetensorError, KeyError) as e:
            raise ClaimError(f"{printable(folder / POOL_FILE, 300)} is damaged", "restore the original") from e
        return cls(rows, file.suffix, read_bytes(file, ClaimError, "feature encoder"))


def encoder_file(folder: Path) -> Path | None:
    """Return the file of the feature encoder in a key folder; None if there is none."""
    return next(iter(sorted(folder.glob(f"{ENCODER_FILE}.*"))), None)
