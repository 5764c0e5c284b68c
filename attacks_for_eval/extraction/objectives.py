"""What a surrogate that learns from representations minimizes."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.losses import HEADED, LABELED, LOSSES
from ownership.encoders.projection import projection_head
from ownership.errors import TrainingError
from watermark_training.device import seeded
from watermark_training.losses import nt_xent_loss

OWN_TEMPERATURE = 0.2
"""Of the attacker's own SimCLR loss."""


class RepresentationObjective(nn.Module):
    """A loss between the surrogate's and the victim's representations, optionally behind a projection head.

    Args:
        config: names the loss.
        dim: length of the surrogate's representations.
        generator: draws the initial weights of the prediction head, for the losses in `HEADED`.
        projection: frozen projection head that both sides pass first (`attacks_for_eval.extraction.heads`).

    With `config.projector` the surrogate's side first passes a trained projector.
    """

    def __init__(
        self, config: ExtractionConfig, dim: int, generator: torch.Generator, *, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.arch, self.dim, self.labeled = config.arch, dim, config.loss in LABELED
        self.projection = nn.Identity() if projection is None else copy.deepcopy(projection).requires_grad_(False)
        with seeded(generator) if config.projector or config.own_share else nullcontext():
            self.projector = projection_head(dim, dim, dim) if config.projector else nn.Identity()
            self.own_head = projection_head(dim, dim, dim) if config.own_share else nn.Identity()
        self.head: nn.Module | None = None
        if config.loss in HEADED:
            d = self.projection(torch.zeros(1, dim)).shape[1]
            with seeded(generator):
                self.head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        tempered = {} if config.temperature is None else {"temperature": config.temperature}
        self.loss = partial(LOSSES[config.loss], **tempered)

    def forward(self, own: Tensor, responses: Tensor, labels: Tensor | None) -> Tensor:
        """Return the loss of representations `(n, d)` against responses `(n, d)`."""
        if responses.shape[1] != self.dim:
            raise TrainingError(
                f"representations of {self.arch} have {self.dim} dimensions, the victim's {responses.shape[1]}",
                "choose an architecture of the victim's dimension",
            )
        extra = [labels] if self.labeled else [] if self.head is None else [self.head]
        return self.loss(self.projection(self.projector(own)), self.projection(responses), *extra)

    def own_loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the attacker's own SimCLR loss of two views of the images."""
        return nt_xent_loss(self.own_head(first), self.own_head(second), OWN_TEMPERATURE)


class TeachersObjective(nn.Module):
    """Agglomerative distillation: one linear head a teacher; 1 - cosine and smooth l1 of each (AM-RADIO).

    Args:
        dim: length of the surrogate's representations.
        dims: lengths of the teachers', whose responses are concatenated.
        generator: draws the heads.

    References:
        [1] Ranzinger et al., AM-RADIO: Agglomerative Vision Foundation Model, CVPR 2024, equations 2 to 4.
    """

    def __init__(self, dim: int, dims: list[int], generator: torch.Generator) -> None:
        super().__init__()
        self.dims = dims
        with seeded(generator):
            self.heads = nn.ModuleList(nn.Linear(dim, d) for d in dims)

    def forward(self, own: Tensor, responses: Tensor, labels: Tensor | None) -> Tensor:
        """Return the mean over teachers of the loss of representations `(n, d)`."""
        total = own.new_zeros(())
        for head, target in zip(self.heads, torch.split(responses, self.dims, dim=1), strict=True):
            found = head(own)
            total = total + 1 - F.cosine_similarity(found, target, dim=1).mean() + F.smooth_l1_loss(found, target)
        return total / len(self.dims)
