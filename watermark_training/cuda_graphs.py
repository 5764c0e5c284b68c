"""CUDA graphs: the kernels of a step recorded once and replayed, so that a GPU never waits for Python to launch them.

A step of ResNet-18 on 32 x 32 images is 700 launches, which take the CPU twice as long as the H200 takes for the work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3
"""Calls made as usual before one is recorded: libraries choose their kernels and make their workspaces in them."""


class Graph:
    """The work of a function of tensors; from the fourth call on replayed.

    The function must do the same work on inputs of the same shapes every time, and reach tensors other than its
    arguments (weights, gradients) where it finds them the first time. One that cannot be recorded, as it waits for the
    device, is called as usual for good.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.recorded: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.usable = True
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns what the function does for these inputs; the next call overwrites it."""
        self.calls += 1
        if self.usable and self.recorded is None and self.calls > WARM:
            self._record(function, inputs)
        if not self.usable:
            return function(*inputs)
        if self.recorded is None:
            return self._aside(function, inputs)
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        self.recorded.replay()
        return self.outputs

    def _record(self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(x.clone() for x in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.outputs = function(*self.inputs)
        except RuntimeError:  # torch.AcceleratorError is one
            self.usable = False
            return
        self.recorded = graph

    def _aside(self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Calls on a stream of its own: work on the default one would be waited for in the recording."""
        here = torch.cuda.current_stream()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            out = function(*inputs)
        here.wait_stream(self.stream)
        return out
