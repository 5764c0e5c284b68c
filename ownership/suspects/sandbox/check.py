"""Which layers of the cage this machine has: found out by putting a process in one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from safetensors.torch import save_file

from ownership.encoders.architectures import ARCHITECTURES
from ownership.suspects.formats.open import LoadOptions
from ownership.suspects.sandbox.encoder import SandboxedEncoder

EXPLAINED = {
    "limits": "more memory, larger files, more open files than it may have",
    "namespaces": "the network and other processes' shared memory, once more",
    "landlock": "reading anything but the libraries and its own copy; writing anything but its own folder",
    "seccomp": "network, other programs, other processes, modes and owners of files",
}


def layers_here() -> dict[str, str]:
    """Returns layer -> what it does here, of a cage around a small encoder."""
    with tempfile.TemporaryDirectory(prefix="turnmark-") as folder:
        path = Path(folder) / "tiny.safetensors"
        save_file(ARCHITECTURES["tiny"]().state_dict(), path)
        encoder = SandboxedEncoder(path, LoadOptions(arch="tiny"))
        encoder.close()
        return encoder.layers
