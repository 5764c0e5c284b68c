"""CUDA graphs: the kernels of a step are recorded once and replayed, so that the GPU does not wait for launches.

A step of ResNet-18 on 32 x 32 images has 700 launches. The CPU takes twice as long for them as an H200 for the work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3
"""Normal calls before the recording: in them libraries select kernels and allocate workspaces."""


class CudaGraphRunner:
    """Runs a function of tensors; from the fourth call on it replays a recording of the function's kernels.

    The function must do the same work on inputs of the same shapes in every call, and must find other tensors (weights,
    gradients) at the same addresses. A function that cannot be recorded, because it synchronizes with the device, is
    called normally.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.recorded: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.usable = True
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the function's outputs for these inputs; the next call overwrites them."""
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
        """Call on a separate stream: the recording would have to wait for work on the default stream."""
        here = torch.cuda.current_stream()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            out = function(*inputs)
        here.wait_stream(self.stream)
        return out
