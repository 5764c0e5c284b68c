"""The rotation watermark: the secret key, rotated views, and the predictor that reads the mark.

Paper, section 5.1: "select a private augmentation, not used during contrastive training" and train the encoder so
that an augmentation predictor can tell in which half of the circle an image was rotated. The paper's circle is cut
at 0 and 180 degrees for everybody, so a stranger who uses the same defence shares the mark (our pilot convicted
such independent encoders). Here the cuts are secret, and angles near a cut, where the halves cannot be told apart, are left out.
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
    """The owner's watermark secret.

    The label of a rotation flips at every cut: label 0 from the first cut to the second, 1 to the next, and so on.
    Two opposite cuts make the paper's half-turn task at a secret angle; the form takes more cuts, so that a longer
    key needs no new format.
    """

    form: str = "cuts-1"  # version of the key's form
    sector_boundaries: tuple[float, ...]  # radians in [0, 2 pi), ascending, an even number of them
    margin: float  # angles closer than this to a cut are never used; radians
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
            raise ClaimError("watermark key: cuts must be an even number of ascending angles in [0, 2 pi)")
        if not all(a > 0 for a, _ in self._arcs_lengths()):
            raise ClaimError("watermark key: the margin leaves no angle between two cuts")

    def _arcs_lengths(self) -> list[tuple[float, float]]:
        """Usable length and start of each arc, in the order of the cuts."""
        ends = (*self.sector_boundaries[1:], self.sector_boundaries[0] + TURN)
        return [(e - c - 2 * self.margin, c + self.margin) for c, e in zip(self.sector_boundaries, ends, strict=True)]

    def angles(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Returns one angle a label, uniform over the arcs of that label.

        Args:
            labels: `(n,)` integers, 0 or 1.
            generator: source of randomness (CPU).

        Returns:
            `(n,)` float32 radians.
        """
        out = torch.empty(len(labels))
        u = torch.rand(len(labels), generator=generator)
        for label in (0, 1):
            arcs = self._arcs_lengths()[label::2]
            lengths = torch.tensor([length for length, _ in arcs])
            starts = torch.tensor([start for _, start in arcs])
            edges = torch.cat([torch.zeros(1), lengths.cumsum(0)])
            chosen = labels.cpu() == label
            position = u[chosen] * edges[-1]
            arc = (torch.bucketize(position, edges[1:-1], right=True)).clamp(max=len(arcs) - 1)
            out[chosen] = starts[arc] + position - edges[arc]
        return out % TURN

    def labels(self, angles: Tensor) -> Tensor:
        """Returns the label of each angle `(n,)`, radians; those in a margin too: 0 or 1, int64."""
        sector_boundaries = torch.tensor(self.sector_boundaries, dtype=torch.float64)
        return (torch.bucketize(angles.double() % TURN, sector_boundaries, right=True) - 1) % len(sector_boundaries) % 2

    def to_dict(self) -> dict[str, Any]:
        """Returns the key as JSON-ready values; secret."""
        return {**asdict(self), "sector_boundaries": list(self.sector_boundaries)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> WatermarkKey:
        """Returns the key stored by `to_dict`.

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


SECRET_CUTS = 4
MIN_SECTOR = math.radians(45)


def secret_key(rng: torch.Generator) -> WatermarkKey:
    """Returns a fresh key: four cuts at random angles, arcs of 45 degrees at least, margins of 9 degrees.

    Two such keys agree or disagree on nearly all angles (correlation of their labels beyond .8) about once in 70; two
    keys of one angle and its opposite, once in five: among fine-tunes of one checkpoint those convict (docs/adr/0005).
    """
    # gaps of sorted uniforms are a uniform draw from the arcs that sum to what is left above the shortest
    edges = torch.rand(SECRET_CUTS - 1, generator=rng, dtype=torch.float64).sort().values
    gaps = torch.diff(torch.cat([torch.zeros(1), edges, torch.ones(1)]).double())
    arcs = MIN_SECTOR + gaps * (TURN - SECRET_CUTS * MIN_SECTOR)
    first = float(torch.rand(1, generator=rng, dtype=torch.float64)) * TURN
    sector_boundaries = sorted(float(c) % TURN for c in first + arcs.cumsum(0))
    seed = int(torch.randint(2**31, (1,), generator=rng))
    return WatermarkKey(sector_boundaries=tuple(sector_boundaries), margin=math.radians(9), predictor_seed=seed)


def paper_key(predictor_seed: int = 0) -> WatermarkKey:
    """Returns the paper's public task: `[0, 180]` against `[180, 360]` degrees, no margin (section 5.1)."""
    return WatermarkKey(sector_boundaries=(0.0, math.pi), margin=0.0, predictor_seed=predictor_seed)


class RotationPredictor(nn.Module):
    """The paper's augmentation predictor: an MLP from a representation to the arc the image was rotated into.

    The paper says two layers, its released code has three (d-256-128-2); this follows the code. The representation
    is first scaled to length sqrt(d): contrastive surrogates keep the direction of the victim's answers, not their
    length (a deviation from the paper, see docs/adr/0002).

    A predictor of pairs reads the answer to the rotated image beside the one to the same image upright, so that what
    the image shows does not hide how it was turned (docs/adr/0021).

    Args:
        dim: length d of a representation.
        seed: seed of the initial weights.
        pairs: whether it reads pairs.
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
        """Returns logits `(n, 2)` for representations `(n, d)` or pairs `(n, 2 d)`, rotated first, then upright."""
        x = F.normalize(representations.reshape(len(representations), -1, self.dim), dim=2).flatten(1) * math.sqrt(
            self.dim
        )
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


def stored_predictor(weights: dict[str, Tensor], dim: int) -> RotationPredictor:
    """Returns the predictor with these weights for representations of length `dim`, in eval mode.

    Raises:
        KeyError, IndexError, RuntimeError: if they are no predictor's, or of another length.
    """
    predictor = RotationPredictor(dim, pairs=weights["layers.0.weight"].shape[1] == 2 * dim)
    predictor.load_state_dict(weights)
    return predictor.eval()


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Returns images rotated counter-clockwise about their centre, bilinear, black outside.

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
    """Returns two rotated views an image, one of each label, as in the paper's section 5.1.

    Args:
        images: `(n, c, h, w)` float in `[0, 1]`.
        key: where the circle is cut.
        generator: source of randomness (CPU).

    Returns:
        Views `(2 n, c, h, w)`, first the n of label 0, then the n of label 1; labels `(2 n,)`; angles `(2 n,)` in
        radians.
    """
    labels = torch.arange(2).repeat_interleave(len(images))
    angles = beside(key.angles(labels, generator), images)
    return rotate(torch.cat([images, images]), angles), beside(labels, images), angles
