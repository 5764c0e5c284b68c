"""Open `torch.export` archives and TorchScript as encoders. Both can contain code and need the sandbox."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils._pytree import tree_unflatten

from ownership.errors import SuspectError
from ownership.io.text import printable
from ownership.suspects.formats.adapter import INPUT_TYPES, AdaptedEncoder
from ownership.suspects.formats.outputs import choose_output
from ownership.suspects.formats.torch_export_vetting import vet_archive


def open_exported(path: Path, output: str | None = None, pooling: str = "auto") -> AdaptedEncoder:
    """Return the encoder in a `torch.export` archive, after vetting.

    Args:
        path: the archive.
        output: name or position of the output that is the representation; None for the only one, or the one so named.
        pooling: pooling of tokens and maps, one of `POOLINGS`.

    Raises:
        UnsafeSuspectError: if the archive contains anything but a graph of allowed operators and raw tensors.
        SuspectError: if it is damaged, or not an encoder.
    """
    vetted = vet_archive(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.load(vetted)
            module: Callable[..., Any] = program.module(check_guards=False)
            inputs = _user_inputs(program)
        except Exception as e:  # each version of torch has its own
            raise SuspectError(
                f"suspect: torch.export cannot read the archive ({printable(e)})", "export it with this torch"
            ) from e
    images = [i for i in inputs if isinstance(i, Tensor)]
    if len(images) != 1 or images[0].ndim != 4 or images[0].dtype not in INPUT_TYPES:
        takes = ", ".join(f"{i.dtype} of {i.ndim} dimensions" for i in images[:8]) or "no tensor"
        raise SuspectError(
            f"suspect: the exported program takes {takes}, expected images (n, 3, h, w)",
            "export the image encoder alone",
        )

    def call(batch: Tensor) -> Any:
        given = [batch if isinstance(i, Tensor) else i for i in inputs]
        positional, named = tree_unflatten(given, program.call_spec.in_spec)
        return module(*positional, **named)

    n, *rest = (d if isinstance(d, int) else 0 for d in images[0].shape)
    channels_last = rest[2] == 3 and rest[0] != 3
    size = rest[:2] if channels_last else rest[1:]
    return _adapted(
        call,
        output,
        batch=n or None,
        size=(size[0], size[1]),
        channels_last=channels_last,
        dtype=images[0].dtype,
        pooling=pooling,
    )


def _user_inputs(program: torch.export.ExportedProgram) -> list[Any]:
    """Return an example of each tensor that a caller gives, and the constants (None, flags) that the file states."""
    examples = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    given = [spec.arg for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
    return [arg.value if isinstance(arg, ConstantArgument) else examples[arg.name] for arg in given]


def open_torchscript(path: Path, output: str | None = None, pooling: str = "auto") -> AdaptedEncoder:
    """Return the encoder in a TorchScript file. Its code runs when it is loaded and called. Arguments as above.

    Raises:
        SuspectError: if it cannot be loaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except Exception as e:
            raise SuspectError(f"suspect: TorchScript cannot be loaded ({printable(e)})", "export it to ONNX") from e
    return _adapted(module, output, pooling=pooling)


def _adapted(call: Callable[[Tensor], Any], output: str | None, **how: Any) -> AdaptedEncoder:
    """Return an encoder of a function that answers a tensor, or several in dictionaries and tuples."""

    def run(images: Tensor) -> Tensor:
        answer = call(images)
        if isinstance(answer, Tensor) and output is None:
            return answer
        tensors = dict(_tensors(answer))
        if not tensors:
            raise SuspectError(
                f"suspect: answers {type(answer).__name__}, expected a tensor (n, d)", "export the encoder"
            )
        name = choose_output({k: t.shape for k, t in tensors.items() if t.is_floating_point()}, output)
        if len(tensors) > 1:
            encoder.choices["output"] = printable(name)
        return tensors[name]

    encoder = AdaptedEncoder(run, **how)
    return encoder


def _tensors(answer: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an answer by name: keys of dictionaries, positions in tuples, joined by dots."""
    if isinstance(answer, Tensor):
        yield name or "0", answer
    elif isinstance(answer, (dict, tuple, list)):
        for key, part in answer.items() if isinstance(answer, dict) else enumerate(answer):
            yield from _tensors(part, f"{name}.{key}" if name else str(key))
