"""Extraction through a projection head: recreated (paper, Algorithm 2) or the victim's own ("Access Head").

Both end in `extract` with `head=`: the loss compares latent vectors z = g(y) instead of representations y.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attacks_for_eval.extraction.black_box import BlackBox
from ownership.encoders.images import as_input, as_uint8, check_images
from ownership.encoders.projection import projection_head
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from watermark_training.augment import simclr_view
from watermark_training.device import seeded
from watermark_training.losses import nt_xent_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """Configuration of `recreate_head`; defaults follow the paper's released code."""

    queries: int = 9000  # different images; each is queried twice an epoch, as two views
    epochs: int = 200  # twice those of the extraction (released code)
    batch_size: int = 256
    lr: float = 1e-3  # Adam's
    temperature: float = 0.07  # of NT-Xent
    projection_dim: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("queries", 8), ("epochs", 1), ("batch_size", 8), ("projection_dim", 2)):
            if getattr(self, name) < low:
                raise TrainingError(f"{name} is {getattr(self, name)}", f"at least {low}")

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-ready values."""
        return asdict(self)


def recreate_head(victim: BlackBox, images: Tensor, config: HeadConfig, *, progress: Progress = silent) -> nn.Module:
    """Train a projection head on the victim's responses to two views of each image (paper, Algorithm 2).

    Args:
        victim: the encoder behind its query counter; it counts 2 x queries x epochs queries.
        images: `(n, c, h, w)` uint8 to choose the queries from.
        config: sizes and seeds.
        progress: called after every step.

    Returns:
        The head g_a: representations `(n, d)` -> latent vectors `(n, projection_dim)`, frozen.

    Raises:
        TrainingError: if there are fewer images than queries.
        BudgetError: if the query budget is used up.
    """
    check_images(images, TrainingError)
    if len(images) < config.queries:
        raise TrainingError(
            f"{config.queries} queries from {len(images)} images", "use fewer queries, or give more images"
        )
    generator = torch.Generator().manual_seed(config.seed)
    queried = images[torch.randperm(len(images), generator=generator)[: config.queries]]
    head: nn.Sequential | None = None
    optimizer: torch.optim.Optimizer | None = None
    batches = max(1, len(queried) // config.batch_size)
    for epoch in range(config.epochs):
        order = torch.randperm(len(queried), generator=generator)[: batches * min(config.batch_size, len(queried))]
        for i, rows in enumerate(torch.split(order, config.batch_size)):
            x = as_input(queried[rows])
            y = victim(torch.cat([as_uint8(simclr_view(x, generator)) for _ in range(2)]))
            if head is None or optimizer is None:
                with seeded(generator):
                    head = projection_head(y.shape[1], y.shape[1], config.projection_dim)
                optimizer = torch.optim.Adam(head.parameters(), lr=config.lr)
            z = head(y)
            loss = nt_xent_loss(z[: len(rows)], z[len(rows) :], config.temperature)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress("recreating the head", epoch * batches + i + 1, config.epochs * batches)
    if head is None:
        raise TrainingError("no head was trained", "use at least one query")
    return head.requires_grad_(False).eval()
