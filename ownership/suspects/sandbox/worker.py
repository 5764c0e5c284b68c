"""The sandboxed process: load the copy and reply to queries. Every error becomes a frame."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ownership.errors import OwnershipError, SandboxError, SuspectError, SuspectFailure, UnsafeSuspectError
from ownership.suspects.formats.adapter import in_size
from ownership.suspects.formats.model_file import ExternalData, LoadedModel, LoadOptions, open_model
from ownership.suspects.sandbox.frames import BadFrame, read_exactly, read_header, write_frame
from ownership.suspects.sandbox.layers import STRICT


def serve(incoming: BinaryIO, outgoing: BinaryIO, layers: dict[str, str], start: dict[str, Any]) -> None:
    """Reply to frames until the pipe closes: `load` opens a file, `query` sends images through the model."""
    torch.set_num_threads(start["threads"])
    missing = [name for name in STRICT if name not in layers]
    model: LoadedModel | None = None
    while True:
        try:
            header = read_header(incoming)
            raw = read_exactly(incoming, header["raw"])
        except BadFrame:
            return
        try:
            if header["op"] == "load":
                options = LoadOptions(**header["options"])
                model = None  # free the memory of the previous model
                folder = Path(header["folder"])
                config = folder / "config.json"  # copied only where the suspect is a folder
                model = open_model(folder / header["name"], options, missing_layers=missing, config=config)
                write_frame(outgoing, _described(model))
            elif model is not None:
                images = torch.frombuffer(raw, dtype=torch.float32).reshape(header["shape"])
                responses = _represent(model, images)
                shape = {"rows": len(responses), "dim": responses.shape[1], "dtype": "<f4"}
                write_frame(outgoing, {**shape, "choices": model.choices}, memoryview(responses.data).cast("B"))
        except ExternalData as e:
            write_frame(outgoing, {"missing_files": e.names[:64]})
        except Exception as e:
            write_frame(outgoing, _error_frame(e))


def _described(model: LoadedModel) -> dict[str, Any]:
    """Return the reply to `load`."""
    size = None if model.size is None else list(model.size)
    reply: dict[str, Any] = {
        "format": model.format,
        "architecture": model.architecture,
        "size": size,
        "choices": model.choices,
    }
    if (weights := model.weights) is not None:
        normalisation = None if weights.normalisation is None else asdict(weights.normalisation)
        if weights.left_aside:
            reply["choices"] = {**model.choices, "left_aside": weights.left_aside}
        reply |= {"entries": [weights.entry, *weights.others], "normalisation": normalisation}
    return reply


def _represent(model: LoadedModel, images: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the representations `(n, d)` of images."""
    with torch.inference_mode():
        responses = model.encoder(in_size(images, model.fixed))
    if not isinstance(responses, torch.Tensor) or responses.ndim != 2 or len(responses) != len(images):
        shape = tuple(responses.shape) if isinstance(responses, torch.Tensor) else type(responses).__name__
        raise SuspectError(
            f"suspect: answers {shape} to {len(images)} images, expected (n, d)",
            "an encoder gives one vector per image; export the pooled output",
        )
    return np.ascontiguousarray(responses.float().numpy(), dtype="<f4")


def _error_frame(e: Exception) -> dict[str, str]:
    """Return the header of the frame that states an error."""
    if not isinstance(e, OwnershipError):  # torch's and onnxruntime's have no common base
        if isinstance(e, MemoryError) or "alloc" in str(e)[:2000].lower():
            why, hint = "suspect: needs more memory than it may take", "--memory-limit"
            return {"error": "failure", "message": why, "hint": hint}
        first = str(e).strip().splitlines()[0][:300] if str(e).strip() else type(e).__name__
        e = SuspectError(f"suspect: cannot take the images: {first}", "it must accept the probes' size and 3 channels")
    kinds = {UnsafeSuspectError: "unsafe", SandboxError: "sandbox", SuspectFailure: "failure"}
    return {"error": kinds.get(type(e), "suspect"), "message": e.message[:2000], "hint": e.hint[:1000]}
