"""Device, precision and compilation of a training; initial weights that depend on one generator only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from ownership.encoders.architectures import Encoder, make_encoder
from ownership.errors import TrainingError
from ownership.io.text import printable


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generator, which layers draw initial weights from, by this one; restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        yield


def seeded_architecture(arch: str, generator: torch.Generator) -> Encoder:
    """Return an encoder with initial weights that depend on the generator only."""
    with seeded(generator):
        return make_encoder(arch)


def compiled(encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """Return the encoder's forward pass under `torch.compile`; its first call compiles, for about a minute."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns about a missing GPU on the CPU
    fast: Callable[[Tensor], Tensor] = torch.compile(encoder)
    return fast


@contextmanager
def compile_errors() -> Iterator[None]:
    """Raise errors of `torch.compile`, in the forward or the backward pass, as TrainingError."""
    try:
        yield
    except Exception as e:
        if not type(e).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise TrainingError(
            f"torch.compile failed ({printable(e, 200)})", "it needs a C++ compiler; or leave out --compile"
        ) from e


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return bfloat16 autocast if `precision` is "bfloat16", or "auto" on hardware that is faster with it."""
    if precision == "float32" or (precision == "auto" and not has_bfloat16(device)):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes faster in bfloat16 than in float32.

    CPUs with AMX do, and AMD's with AVX-512 BF16. On Intel, AVX-512 BF16 without AMX has half the throughput: where a
    virtual machine hides AMX, a training step takes 1.3 times as long as in float32 (measured on an
    Emerald Rapids, docs/results/training.md). Held to AVX2 (ATEN_CPU_CAPABILITY), PyTorch converts to and from
    bfloat16 without such instructions: a step then takes 16 times as long.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    # private names of torch; a version without them uses float32
    amx, avx = (getattr(torch.cpu, query, bool) for query in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return amx() or (avx() and _vendor() == "AuthenticAMD")


@lru_cache(maxsize=1)
def _vendor() -> str:
    """Vendor of the CPU on Linux; empty on other systems."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
            return next((line.split(":")[1].strip() for line in f if line.startswith("vendor_id")), "")
    except OSError:
        return ""


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is CUDA, else Apple's MPS, else the CPU.

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
