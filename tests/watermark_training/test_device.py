"""In which precision "auto" computes."""

from __future__ import annotations

import pytest
import torch

from watermark_training import device
from watermark_training.device import autocast, has_bfloat16


@pytest.mark.parametrize(
    ("amx", "avx", "vendor", "capability", "faster"),
    [
        (True, True, "GenuineIntel", "AVX512", True),
        (False, True, "GenuineIntel", "AVX512", False),  # half the throughput: measured, benchmarks.training
        (False, True, "AuthenticAMD", "AVX512", True),
        (False, True, "AuthenticAMD", "AVX2", False),  # ATEN_CPU_CAPABILITY=avx2
        (False, False, "AuthenticAMD", "AVX2", False),
        (False, True, "", "AVX512", False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(
    amx: bool, avx: bool, vendor: str, capability: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(device, "_vendor", lambda: vendor)
    assert has_bfloat16(torch.device("cpu")) is faster


def test_an_explicit_precision_is_used() -> None:
    a = torch.ones(4, 4)
    for precision, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert (a @ a).dtype is kind


def test_the_vendor_is_read() -> None:
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        assert device._vendor() in f.read()
