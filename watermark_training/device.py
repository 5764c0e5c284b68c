"""Where training runs and in which precision, and initial weights that depend on our generator only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from ownership.architectures import Encoder, make_encoder
from ownership.errors import TrainingError


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Layers draw their initial weights from the global generator: seeds it from ours, and puts it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        yield


def seeded_architecture(arch: str, generator: torch.Generator) -> Encoder:
    """Returns a freshly initialised encoder whose weights depend on the generator only."""
    with seeded(generator):
        return make_encoder(arch)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns bfloat16 autocast where asked for, or where `precision` is "auto" and the hardware has it."""
    if precision == "float32" or (precision == "auto" and not has_bfloat16(device)):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether the device computes in bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # private names of torch: where a version lacks them, float32 it is
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, ask, bool)() for ask in asks)


def pick_device(name: str) -> torch.device:
    """Returns the device called `name`; "auto" is CUDA, then Apple's MPS, then the CPU.

    Raises:
        TrainingError: if there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise TrainingError(f"device {name!r} is not available", "use --device auto or cpu") from e
    return device
