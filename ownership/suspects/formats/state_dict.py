"""Bare weights into the network they were made for: named, stated beside them, or found out from their shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ownership.encoders.architectures import ARCHITECTURES, Encoder, is_architecture, known_architectures, make_encoder
from ownership.encoders.backbones import as_encoder_state
from ownership.errors import SuspectError
from ownership.io.files import read_json
from ownership.io.text import printable

COMMON = (
    *(f"torchvision:{m}" for m in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2")),
    *(f"torchvision:{m}" for m in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")),
    *(f"torchvision:{m}" for m in ("vit_b_16", "vit_b_32", "convnext_tiny", "densenet121", "vgg16_bn")),
    *(f"timm:{m}" for m in ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "resnet26")),
)
"""Backbones that nameless weights are compared with, beside `ARCHITECTURES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What a `config.json` beside weights says."""

    architectures: tuple[str, ...] = ()  # what the name may mean: ours and timm's overlap
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_model_config(path: Path) -> ModelConfig:
    """Returns what `config.json` says of architecture, mean and std, as timm and Turnmark write it.

    A `preprocessor_config.json` beside it, as transformers writes it, says mean and std, too.
    """
    value = read_json(path, SuspectError, "suspect") if path.is_file() else {}
    name, about = value.get("architecture"), value.get("pretrained_cfg")
    other = path.with_name("preprocessor_config.json")
    beside = read_json(other, SuspectError, "suspect") if other.is_file() else {}

    def channels(key: str) -> tuple[float, ...] | None:
        given = about.get(key) if isinstance(about, dict) else beside.get(f"image_{key}")
        numbers = isinstance(given, list) and len(given) == 3 and all(type(x) in (int, float) for x in given)
        if not numbers or not all(math.isfinite(x) and (x > 0 or key == "mean") for x in given or ()):
            return None
        return tuple(float(x) for x in given or ())

    names = (name, f"timm:{name}") if isinstance(name, str) else ()
    return ModelConfig(
        architectures=tuple(n for n in names if is_architecture(n)), mean=channels("mean"), std=channels("std")
    )


def fill(state: dict[str, Tensor], architecture: str | None, stated: ModelConfig) -> tuple[str, Encoder]:
    """Returns the architecture of weights and the encoder that they fill.

    Args:
        state: the weights.
        architecture: its name, if anybody says it; a name from a file that we do not know is as good as none.
        stated: by a file beside the weights: architecture; mean and std for a library's own weights, which have none.

    Raises:
        SuspectError: if nothing fits, with what fits best.
    """
    if architecture is None and stated.architectures:
        architecture = next((n for n in stated.architectures if _fits(state, n)), stated.architectures[0])
    named = architecture if architecture is not None else _matching(state)
    if not is_architecture(named):
        raise SuspectError(f"unknown architecture {printable(named)!r}", f"one of: {known_architectures()}")
    expected = _expected(named)
    given = state if named in ARCHITECTURES else as_encoder_state(state, expected)
    missing = [k for k in expected if k not in given]
    unexpected = [k for k in given if k not in expected]
    misshaped = [k for k in expected if k in given and given[k].shape != expected[k].shape]
    if missing or unexpected or misshaped:
        first = (missing or misshaped or unexpected)[0]
        better = next((name for name in (*ARCHITECTURES, *COMMON) if name != named and _fits(state, name)), None)
        raise SuspectError(
            f"suspect does not fit {named}: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
            f"{len(misshaped)} of another shape; first: {printable(first)}",
            f"did you mean {better}?" if better else f"name the right one with --arch ({known_architectures()})",
        )
    encoder = make_encoder(named)
    filled = {k: v for k, v in given.items() if not v.is_meta}  # a library's own file has no mean and std
    for name, value in (("mean", stated.mean), ("std", stated.std)):
        if value is not None and name not in filled:
            filled[name] = torch.tensor(value).reshape(1, 3, 1, 1)
    encoder.load_state_dict({**encoder.state_dict(), **filled})
    return named, encoder.eval()


def _expected(name: str) -> dict[str, Tensor]:
    """Names and shapes of an architecture, without memory: a small file may name a network larger than all of it."""
    try:
        with torch.device("meta"):
            return make_encoder(name).state_dict()
    except Exception as e:  # each of a thousand models has its own way of failing
        raise SuspectError(f"{name} cannot be made ({printable(e, 120)})", "export the model to ONNX") from e


def _fits(state: dict[str, Tensor], name: str) -> bool:
    try:
        expected = _expected(name)
    except SuspectError:
        return False
    given = state if name in ARCHITECTURES else as_encoder_state(state, expected)
    return {k: v.shape for k, v in given.items()} == {k: v.shape for k, v in expected.items()}


def _matching(state: dict[str, Tensor]) -> str:
    """The one architecture with these names and shapes."""
    for name in (*ARCHITECTURES, *COMMON):
        if _fits(state, name):
            return name
    first = printable(next(iter(state))) if state else "none"
    raise SuspectError(
        f"suspect: {len(state)} tensors fit no known architecture (first: {first})",
        f"name it with --arch ({known_architectures()}), or export the model to ONNX",
    )
