"""The rotation watermark: the secret key, rotated views, and the predictor that detects the watermark.

Paper, section 5.1: "select a private augmentation, not used during contrastive training" and train the encoder so
that an augmentation predictor can tell in which half of the circle an image was rotated. The paper cuts the circle
at 0 and 180 degrees for every owner, so an independent encoder with the same defense shares the watermark: a pilot
study had false positives of this kind. Here the sector boundaries are secret. Angles near a boundary, where the
sectors cannot be told apart, are left out.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.encoders.images import beside
from ownership.errors import ClaimError

TURN = 2 * math.pi


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkKey:
    """The owner's secret key of the watermark.

    The sector boundaries divide the circle. The label of a rotation is 0 from the first boundary to the second, 1 from
    the second to the third, and so on. Two opposite boundaries give the paper's
    180-degree rotation task at a secret angle.
    """

    form: str = "cuts-1"  # version of the stored form
    sector_boundaries: tuple[float, ...]  # radians in [0, 2 pi), ascending, an even number of them
    margin: float  # angles closer than this to a boundary are never used; radians
    predictor_seed: int  # seed of the predictor's initial weights

    def __post_init__(self) -> None:
        ordered = all(a < b for a, b in pairwise(self.sector_boundaries))
        if self.form != "cuts-1":
            raise ClaimError(f"watermark key of unknown form {self.form!r}", "update turnmark")
        if (
            len(self.sector_boundaries) < 2
            or len(self.sector_boundaries) % 2
            or not ordered
            or not all(0 <= c < TURN for c in self.sector_boundaries)
        ):
            raise ClaimError("watermark key: sector boundaries must be an even number of ascending angles in [0, 2 pi)")
        if not all(a > 0 for a, _ in self._sectors()):
            raise ClaimError("watermark key: the margin leaves no angle between two sector boundaries")

    def _sectors(self) -> list[tuple[float, float]]:
        """Usable length and start of each sector, in the order of the boundaries."""
        ends = (*self.sector_boundaries[1:], self.sector_boundaries[0] + TURN)
        return [(e - c - 2 * self.margin, c + self.margin) for c, e in zip(self.sector_boundaries, ends, strict=True)]

    def angles(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return one angle per label, uniform over the sectors of that label.

        Args:
            labels: `(n,)` integers, 0 or 1.
            generator: source of randomness (CPU).

        Returns:
            `(n,)` float32 radians.
        """
        out = torch.empty(len(labels))
        u = torch.rand(len(labels), generator=generator)
        for label in (0, 1):
            sectors = self._sectors()[label::2]
            lengths = torch.tensor([length for length, _ in sectors])
            starts = torch.tensor([start for _, start in sectors])
            edges = torch.cat([torch.zeros(1), lengths.cumsum(0)])
            chosen = labels.cpu() == label
            position = u[chosen] * edges[-1]
            sector = (torch.bucketize(position, edges[1:-1], right=True)).clamp(max=len(sectors) - 1)
            out[chosen] = starts[sector] + position - edges[sector]
        return out % TURN

    def labels(self, angles: Tensor) -> Tensor:
        """Return the labels `(n,)` int64, 0 or 1, of angles `(n,)` in radians, including angles within a margin."""
        sector_boundaries = torch.tensor(self.sector_boundaries, dtype=torch.float64)
        return (torch.bucketize(angles.double() % TURN, sector_boundaries, right=True) - 1) % len(sector_boundaries) % 2

    def to_dict(self) -> dict[str, Any]:
        """Return the key as JSON values; they are secret."""
        return {**asdict(self), "sector_boundaries": list(self.sector_boundaries)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> WatermarkKey:
        """Return the key that `to_dict` stored.

        Raises:
            ClaimError: if a field is missing or out of range.
        """
        try:
            return cls(
                form=str(value["form"]),
                sector_boundaries=tuple(float(c) for c in value["sector_boundaries"]),
                margin=float(value["margin"]),
                predictor_seed=int(value["predictor_seed"]),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise ClaimError("watermark key: a field is missing or malformed") from e


SECRET_SECTORS = 4
MIN_SECTOR = math.radians(45)


def secret_key(rng: torch.Generator) -> WatermarkKey:
    """Draw a new key: four boundaries at random angles, sectors of at least 45 degrees, margins of 9 degrees.

    The labels of two such keys have a correlation beyond +-0.8 for 1 of 70 pairs of keys. With two opposite boundaries
    it would be 1 of 5 pairs, which gives false positives among sibling fine-tunes of one checkpoint (docs/adr/0005).
    """
    # gaps of sorted uniforms are uniform on the simplex: the lengths of the sectors above their minimum
    edges = torch.rand(SECRET_SECTORS - 1, generator=rng, dtype=torch.float64).sort().values
    gaps = torch.diff(torch.cat([torch.zeros(1), edges, torch.ones(1)]).double())
    sectors = MIN_SECTOR + gaps * (TURN - SECRET_SECTORS * MIN_SECTOR)
    first = float(torch.rand(1, generator=rng, dtype=torch.float64)) * TURN
    sector_boundaries = sorted(float(c) % TURN for c in first + sectors.cumsum(0))
    seed = int(torch.randint(2**31, (1,), generator=rng))
    return WatermarkKey(sector_boundaries=tuple(sector_boundaries), margin=math.radians(9), predictor_seed=seed)


def paper_key(predictor_seed: int = 0) -> WatermarkKey:
    """Return the paper's public key: `[0, 180]` against `[180, 360]` degrees, no margin (section 5.1)."""
    return WatermarkKey(sector_boundaries=(0.0, math.pi), margin=0.0, predictor_seed=predictor_seed)


class RotationPredictor(nn.Module):
    """The paper's augmentation predictor: an MLP that classifies the sector of an image's rotation.

    The paper states two layers, its released code has three (d-256-128-2); this follows the code. Representations are
    first scaled to length sqrt(d), because contrastive surrogates keep the direction of the victim's representations
    but not their length. The scaling deviates from the paper (docs/adr/0002).

    A predictor of pairs takes the representations of the rotated and of the unrotated image, so that the content of the
    image does not hide its rotation (docs/adr/0021).

    Args:
        dim: dimension d of a representation.
        seed: seed of the initial weights.
        pairs: whether the input is pairs of representations.
    """

    def __init__(self, dim: int, seed: int = 0, *, pairs: bool = False) -> None:
        super().__init__()
        self.dim, self.pairs = dim, pairs
        widths = (2 * dim if pairs else dim, 256, 128, 2)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        generator = torch.Generator().manual_seed(seed)
        for layer, width in zip(self.layers, widths, strict=False):
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)

    def forward(self, representations: Tensor) -> Tensor:
        """Return logits `(n, 2)` of representations `(n, d)`, or of pairs `(n, 2 d)`: rotated, then unrotated."""
        x = F.normalize(representations.reshape(len(representations), -1, self.dim), dim=2).flatten(1) * math.sqrt(
            self.dim
        )
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Watermark:
    """A rotation watermark as a claim holds it.

    Attributes:
        key: The secret key; None where it is redacted.
        predictor: The rotation predictor.
    """

    key: WatermarkKey | None
    predictor: RotationPredictor


def stored_predictor(weights: dict[str, Tensor], dim: int) -> RotationPredictor:
    """Return the predictor with these weights for representations of dimension `dim`, in eval mode.

    Raises:
        KeyError, IndexError, RuntimeError: if they are not the weights of a predictor of this dimension.
    """
    predictor = RotationPredictor(dim, pairs=weights["layers.0.weight"].shape[1] == 2 * dim)
    predictor.load_state_dict(weights)
    return predictor.eval()


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Rotate images counter-clockwise about their centre, with bilinear interpolation and black corners.

    Args:
        images: `(n, c, h, w)` float.
        angles: `(n,)` radians.
    """
    cos, sin = angles.cos().to(images), angles.sin().to(images)
    h, w = images.shape[-2:]
    zero = torch.zeros_like(cos)
    # affine_grid works in [-1, 1]; the aspect ratio keeps a rotation of pixels a rotation
    theta = torch.stack(
        [torch.stack([cos, -sin * h / w, zero], 1), torch.stack([sin * w / h, cos, zero], 1)], 1
    )  # (n, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rotated_pairs(images: Tensor, key: WatermarkKey, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return two rotated views of each image, one of each label, as in the paper's section 5.1.

    Args:
        images: `(n, c, h, w)` float in `[0, 1]`.
        key: the key, which determines the angles of each label.
        generator: source of randomness (CPU).

    Returns:
        Views `(2 n, c, h, w)`, first the n of label 0, then the n of label 1; labels `(2 n,)`; angles `(2 n,)` in
        radians.
    """
    labels = torch.arange(2).repeat_interleave(len(images))
    angles = beside(key.angles(labels, generator), images)
    return rotate(torch.cat([images, images]), angles), beside(labels, images), angles
