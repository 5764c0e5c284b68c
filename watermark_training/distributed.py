"""Training on several processes (`torchrun`): ranks, rows gathered with their gradients, averaged gradients.

Each process works on its own part of every batch. Losses that compare images with each other gather the whole batch.
Gradients are averaged by one all-reduce an update, and so equal those of one process with the whole batch.
DistributedDataParallel is not used: it keeps the process group alive after its destruction, and Gloo's threads then
sometimes crash the interpreter at exit (torch 2.14).
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
    """Return the index of this process; 0 if there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(x: Tensor) -> Tensor:
    """Return the rows `(n, d)` of all processes in rank order, `(world_size n, d)`; gradients flow back to each."""
    if world_size() == 1:
        return x
    out: Tensor = _Gather.apply(x.contiguous())
    return out


class _Gather(torch.autograd.Function):
    """All processes' rows; backward: the sum over processes of the gradients of this process's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes; parameters without a gradient have none on any process."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, torch.split(flat / world_size(), [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean_over_processes(x: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes."""
    if world_size() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / world_size()


def from_first_process(value: Any) -> Any:
    """Return, on every process, the value that the first process passed."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def processes(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes if `torchrun` started this one; yield the device of this process.

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
        dist.barrier()  # no process ends while another one still communicates with it
    finally:
        dist.destroy_process_group()
