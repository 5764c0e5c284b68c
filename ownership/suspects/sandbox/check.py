"""Find which isolation layers this machine supports, by starting a sandboxed process."""

from __future__ import annotations

import tempfile
from pathlib import Path

from safetensors.torch import save_file

from ownership.encoders.architectures import ARCHITECTURES
from ownership.suspects.formats.model_file import LoadOptions
from ownership.suspects.sandbox.encoder import SandboxedEncoder

EXPLAINED = {
    "limits": "memory, file size and number of open files above the limits",
    "namespaces": "the network, and shared memory of other processes",
    "landlock": "reading anything but the libraries and its own copy; writing anything but its own folder",
    "seccomp": "network, other programs, other processes, modes and owners of files",
}


def layers_here() -> dict[str, str]:
    """Return isolation layer -> its details on this machine, from the sandbox of a small encoder."""
    with tempfile.TemporaryDirectory(prefix="turnmark-") as folder:
        path = Path(folder) / "tiny.safetensors"
        save_file(ARCHITECTURES["tiny"]().state_dict(), path)
        encoder = SandboxedEncoder(path, LoadOptions(arch="tiny"))
        encoder.close()
        return encoder.layers
