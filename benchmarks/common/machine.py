"""The machine and the library versions that a row was measured with."""

from __future__ import annotations

import os
from pathlib import Path

from ownership.reports.report import versions

__all__ = ["cores", "cpu", "versions"]


def cores() -> int:
    """Return the number of logical CPUs."""
    return os.cpu_count() or 1


def cpu() -> str:
    """Return the CPU's vendor, family and model number (Linux)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = dict(line.replace("\t", "").split(":", 1) for line in reversed(lines) if ":" in line)
    return f"{found['vendor_id'].strip()} family {found['cpu family'].strip()} model {found['model'].strip()}"
