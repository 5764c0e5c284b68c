"""Hostile modules as TorchScript: programs. (Annotations are read by the compiler, so none are postponed here.)"""

import torch
from torch import Tensor, nn


class Writes(nn.Module):
    """Writes a file in its forward pass."""

    path: str

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x.flatten(1)


class MapsFile(nn.Module):
    """Reads a file of the auditor's through a tensor operator and answers with its bytes."""

    path: str

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        read = torch.from_file(self.path, False, 64, dtype=torch.uint8)
        return x.flatten(1)[:, :64] + read.float()


class Loops(nn.Module):
    """Never ends."""

    def forward(self, x: Tensor) -> Tensor:
        i = 0
        while i >= 0:
            i = (i + 1) % 1000
        return x.flatten(1)


class Counts(nn.Module):
    """Responses change with every call."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1.0
        return x.flatten(1) * (1.0 + 0.1 * self.calls) + torch.sin(self.calls * x.flatten(1))
