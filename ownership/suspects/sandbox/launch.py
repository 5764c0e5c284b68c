"""What runs in the cage, from its first instruction: read where to lock, lock, only then import torch and serve.

Run as `python -I .../launch.py`; started by `SandboxedEncoder` alone. Standard library only.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path


def main() -> None:
    """Serves frames from what was standard input to what was standard output, until it is closed."""
    package = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(package.parent))
    frames = importlib.import_module("ownership.suspects.sandbox.frames")
    layers = importlib.import_module("ownership.suspects.sandbox.layers")
    sys.path.pop(0)  # the packages found there are imported; what they hold is looked up in them
    # nothing that a library prints may be taken for a frame
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    start = frames.read_header(incoming)
    sys.path += [p for p in start["path"] if p not in sys.path]
    readable = [  # not all of sys.path: a development install puts its whole checkout there, claims and all
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
