"""Projection heads of self-supervised training, for dataset inference by loss and extraction through the head."""

from __future__ import annotations

from torch import Tensor, nn


def load_projection_head(tensors: dict[str, Tensor]) -> nn.Module:
    """Return the head `Linear - [BatchNorm -] ReLU - Linear` with these weights (SimCLR's has no BatchNorm).

    Raises:
        KeyError, ValueError, RuntimeError: if they are not the weights of such a head.
    """
    (hidden, dim), normalised = tensors["0.weight"].shape, "1.running_mean" in tensors
    out = len(tensors["3.weight" if normalised else "2.weight"])
    head = projection_head(dim, hidden, out, normalised=normalised)
    head.load_state_dict(tensors)
    return head.eval()


def projection_head(dim: int, hidden: int, out: int, *, normalised: bool = False) -> nn.Sequential:
    """Return a new head: representations `(n, dim)` -> projections `(n, out)`."""
    middle = [nn.BatchNorm1d(hidden), nn.ReLU()] if normalised else [nn.ReLU()]
    return nn.Sequential(nn.Linear(dim, hidden), *middle, nn.Linear(hidden, out))
