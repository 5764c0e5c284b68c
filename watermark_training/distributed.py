"""Training on several processes (`torchrun`): who is who, and rows gathered across them with their gradients.

Each process works on its own part of every batch. Losses that compare images with each other take the whole batch,
gathered; gradients are then averaged, and so equal those of one process with the whole batch. One all-reduce an update
does that: DistributedDataParallel would overlap it with the backward pass, but keeps the process group alive after it
is destroyed, and Gloo's threads then crash the interpreter now and then as it ends (torch 2.14).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ownership.errors import TrainingError


def rank() -> int:
    """Returns which process this is; 0 where there is one only."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Returns how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(x: Tensor) -> Tensor:
    """Returns the rows `(n, d)` of all processes in their order, `(world n, d)`; gradients flow back to each."""
    if world() == 1:
        return x
    out: Tensor = _Gather.apply(x.contiguous())
    return out


class _Gather(torch.autograd.Function):
    """All processes' rows; backward, the gradients that all processes have for one's own rows, summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces gradients by their mean over all processes; those that have none are left out, alike everywhere."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world() == 1 or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, torch.split(flat / world(), [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean_over_processes(x: Tensor) -> Tensor:
    """Returns the mean of a tensor over all processes."""
    if world() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / world()


def of_first(value: Any) -> Any:
    """Returns what the first process has, on all of them."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def processes(device: torch.device) -> Iterator[torch.device]:
    """Joins the other processes if `torchrun` started this one; yields the device of this process.

    Raises:
        TrainingError: if they cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not dist.is_available():
        yield device
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as e:
        raise TrainingError("the other processes cannot be reached", "start with torchrun") from e
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    try:
        yield device
        dist.barrier()  # nobody leaves while another still talks to it
    finally:
        dist.destroy_process_group()
