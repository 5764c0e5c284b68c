"""Find encoders in a checkpoint: in which of its mappings they lie, and behind which prefix of names.

Training code writes an encoder's weights beside an optimizer's, under `state_dict`, `model` or `teacher`, as
`module.encoder_q.conv1.weight`, with a projection head, and often twice: plain and averaged. No list of such layouts is
kept. An entry is a mapping and a prefix behind which every tensor of an architecture lies, in its shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ownership.encoders.backbones import HEADS
from ownership.errors import SuspectError
from ownership.io.text import printable
from ownership.suspects.formats.unpickling import Skipped

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
"""Parts of names that torch.compile, FSDP, activation checkpointing and DeepSpeed add, anywhere in a name."""

DEEPEST = 6
"""Levels of mappings that are looked into."""
MOST_MAPPINGS = 200
MOST_ENTRIES = 8
"""More encoders than this in one file are refused: each is tested at its share of alpha."""

Shapes = Mapping[str, torch.Size]
"""Name of a tensor, as a file has it -> its shape."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Entry:
    """An encoder's tensors in a checkpoint.

    Attributes:
        name: Path of the mapping and prefix, with dots; empty: the whole file, without a prefix.
        state: Its tensors, by the names of the architecture.
    """

    name: str
    state: dict[str, Tensor]


def mappings(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping with named tensors in a checkpoint: its path, with dots, and its tensors.

    Raises:
        SuspectError: If one has a tensor of a kind that no encoder is loaded from.
    """
    if not isinstance(value, dict) or depth > DEEPEST:
        return
    content = {k: dict.__getitem__(value, k) for k in dict.__iter__(value)}  # a pickle can hide a dict's methods
    named = {k: v for k, v in content.items() if isinstance(k, str)}
    for name, item in named.items():
        if isinstance(item, Skipped) and item.called.startswith("torch._utils._rebuild"):
            raise SuspectError(f"suspect: tensor {printable(name)} has an unsupported layout", "save it contiguous")
    if tensors := {k: v.detach() for k, v in named.items() if type(v) in (Tensor, torch.nn.Parameter)}:
        yield path, tensors
    for name, item in named.items():
        yield from mappings(item, f"{path}.{name}" if path else name, depth + 1)


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without the parts of their names that wrappers of modules add."""
    out = {}
    for name, tensor in state.items():
        for part in WRAPPERS:
            name = name.replace(part, "")
        out[name] = tensor
    return out


def prefixes(state: Mapping[str, Tensor], expected: Shapes) -> Iterator[str]:
    """Yield the prefixes behind which all tensors of an architecture lie, and none more of its own modules.

    A projection head, a queue or a decoder beside them is left aside. A further tensor in one of the architecture's
    modules, such as a further layer, means that it is another one. Counters of batch normalisation may be missing.

    Args:
        state: Tensors by the file's names.
        expected: The tensors that have to be there.
    """
    needed = {k: v for k, v in expected.items() if not k.endswith("num_batches_tracked")}
    first = next(iter(needed))
    modules = {k.partition(".")[0] for k in expected}
    for name in state:
        prefix = name.removesuffix(first)
        if not name.endswith(first) or (prefix and not prefix.endswith(".")):
            continue
        if any(prefix + k not in state or state[prefix + k].shape != shape for k, shape in needed.items()):
            continue
        behind = (k.removeprefix(prefix) for k in state if k.startswith(prefix))
        if all(k in expected or k.partition(".")[0] not in modules or k.startswith(HEADS) for k in behind):
            yield prefix


def entries(state: Mapping[str, Tensor], path: str, expected: Shapes, names: Mapping[str, str]) -> Iterator[Entry]:
    """Yield the encoders of one architecture in a mapping.

    Args:
        state: The mapping's tensors.
        path: Its path.
        expected: The architecture's tensors, by the names that a file may have for them.
        names: Those names -> the names of the architecture.
    """
    for prefix in prefixes(state, expected):
        tensors = {names[k]: state[prefix + k] for k in expected if prefix + k in state}
        yield Entry(name=".".join(x for x in (path, prefix.strip(".")) if x), state=tensors)


def same_tensors(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Return whether two encoders have the same weights."""
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def picked(found: list[tuple[str, Entry]], wanted: str | None) -> list[tuple[str, Entry]]:
    """Return the entries that are wanted, each with its architecture; entries of the same weights count once.

    Args:
        found: Architecture and entry.
        wanted: Name of an entry, or its beginning up to a dot; None for all.

    Raises:
        SuspectError: If there is none, or there are too many.
    """
    shown = ", ".join(printable(entry.name or "(the file)", 80) for _, entry in found[: MOST_ENTRIES + 1])
    if wanted is not None:
        chosen = [x for x in found if x[1].name == wanted] or [x for x in found if x[1].name.startswith(wanted + ".")]
        if not chosen:
            raise SuspectError(f"suspect: there is no entry {printable(wanted, 80)!r}; there are: {shown}", "--entry")
        found = chosen
    distinct: list[tuple[str, Entry]] = []
    for arch, entry in found:
        if not any(arch == a and same_tensors(entry.state, e.state) for a, e in distinct):
            distinct.append((arch, entry))
    if len(distinct) > MOST_ENTRIES:
        raise SuspectError(f"suspect: more than {MOST_ENTRIES} encoders in one file: {shown}, ...", "name one: --entry")
    return distinct
