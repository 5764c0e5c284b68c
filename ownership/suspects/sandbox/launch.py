"""Entry point of the sandboxed process: read the settings, apply the isolation layers, then import torch and serve.

`SandboxedEncoder` runs it as `python -I .../launch.py`. Standard library only.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path


def main() -> None:
    """Serve frames from the original standard input to the original standard output, until the input ends."""
    package = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(package.parent))
    frames = importlib.import_module("ownership.suspects.sandbox.frames")
    layers = importlib.import_module("ownership.suspects.sandbox.layers")
    sys.path.pop(0)  # modules of the imported packages are found in the packages themselves
    # redirect standard output, so that the output of a library is not read as a frame
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    start = frames.read_header(incoming)
    sys.path += [p for p in start["path"] if p not in sys.path]
    readable = [  # not all of sys.path: a development install adds its checkout, which may contain claims
        *start["readable"],
        *start["path"],
        str(package),
        *(sys.prefix, sys.base_prefix, sys.exec_prefix, "/usr", "/lib", "/lib64", "/etc/ld.so.cache"),
        *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system", "/dev/null", "/dev/urandom"),
    ]
    on = layers.lock(
        readable=readable, writable=start["writable"], memory=start["memory"], without=frozenset(start["without"])
    )
    frames.write_frame(outgoing, {"layers": on})
    importlib.import_module("ownership.suspects.sandbox.worker").serve(incoming, outgoing, on, start)


if __name__ == "__main__":
    main()
