"""The names that a file may have for the tensors of an architecture, and settings that its tensors tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ownership.encoders.architectures import ARCHITECTURES, make_encoder
from ownership.errors import SuspectError
from ownership.io.text import printable

NORMALISATION = ("mean", "std")
STEM = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
"""Modules of a ResNet -> their places among its children: `nn.Sequential(*children)`, as lightly has it."""
STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""Blocks in each stage of the ResNets for small images in `ARCHITECTURES`; public code names them like torchvision."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Layout:
    """One way in which files name the tensors of an architecture.

    Attributes:
        architecture: Its name, with settings.
        names: Name in the file -> name in the encoder.
        expected: Name in the file -> shape.
        normalised: Whether mean and std are among the tensors.
    """

    architecture: str
    names: Mapping[str, str]
    expected: Mapping[str, torch.Size]
    normalised: bool


@lru_cache(maxsize=256)
def layouts_of(architecture: str) -> tuple[Layout, ...]:
    """Return the layouts of an architecture: Turnmark's own, the library's, and those of public code for ResNets.

    Raises:
        SuspectError: If the library cannot make it.
    """
    shapes = _shapes(architecture)
    own = {k: k for k in shapes}
    bare = {k.removeprefix("body."): k for k in shapes if k not in NORMALISATION}
    found = [own]
    if architecture not in ARCHITECTURES:
        found.append(bare)
        if {"conv1.weight", "layer4.0.conv1.weight"} <= bare.keys():
            found.append({_renamed(k, STEM): v for k, v in bare.items()})
    elif architecture in STAGES:
        found.append({_as_torchvision(k, STAGES[architecture]): v for k, v in bare.items()})
    return tuple(
        Layout(
            architecture=architecture,
            names=names,
            expected={k: shapes[v] for k, v in names.items()},
            normalised=names is own,
        )
        for names in found
    )


def _shapes(architecture: str) -> dict[str, torch.Size]:
    """Return names and shapes of an architecture, without allocating it: a small file may name a huge network."""
    try:
        with torch.device("meta"):
            state = make_encoder(architecture).state_dict()
    except Exception as e:  # the thousand models of timm raise errors of many types
        raise SuspectError(f"{architecture} cannot be made ({printable(e, 120)})", "export the model to ONNX") from e
    return {k: v.shape for k, v in state.items()}


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    module, dot, rest = name.partition(".")
    return modules.get(module, module) + dot + rest


def _as_torchvision(name: str, stages: tuple[int, ...]) -> str:
    """Return torchvision's name of a tensor of a ResNet in `ARCHITECTURES`, without "body."."""
    place, _, rest = name.partition(".")
    at = int(place)
    if at < 2:
        return f"{('conv1', 'bn1')[at]}.{rest}"
    at -= 3  # after convolution, normalisation and ReLU
    for stage, depth in enumerate(stages, 1):
        if at < depth:
            return f"layer{stage}.{at}.{rest.replace('shortcut', 'downsample')}"
        at -= depth
    raise ValueError(name)


def settings_of(architecture: str, state: Mapping[str, Tensor], global_pool: str | None = None) -> Iterator[str]:
    """Yield an architecture as it is, and with the settings that a transformer of timm has in these tensors.

    Args:
        architecture: Its name, without settings.
        state: The tensors of a file.
        global_pool: Pooling of tokens, as `config.json` states it.
    """
    positions = next((v for k, v in state.items() if k.endswith("pos_embed") and "decoder" not in k), None)
    placed = positions is not None and "body.pos_embed" in layouts_of(architecture)[0].expected
    if not placed or positions is None or positions.ndim != 3 or not architecture.startswith("timm:"):
        yield architecture
        return
    patch = next((v.shape[-1] for k, v in state.items() if k.endswith("patch_embed.proj.weight") and v.ndim == 4), 0)
    pool = "avg" if any(k.endswith("fc_norm.weight") for k in state) else global_pool
    pooled = [f"global_pool={pool}"] if pool is not None and pool != "token" else []
    if "?" in architecture or not pooled:
        yield architecture
    if "?" in architecture:
        return
    side = round((positions.shape[1] - 1) ** 0.5)
    sized = [f"img_size={side * patch}"] if side * side == positions.shape[1] - 1 and 0 < side * patch <= 2048 else []
    for settings in (pooled, sized + pooled):
        if settings:
            yield f"{architecture}?{'&'.join(settings)}"
