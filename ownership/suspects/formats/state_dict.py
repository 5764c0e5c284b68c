"""Load bare weights into their architecture: given, stated in `config.json`, or inferred from names and shapes."""

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
"""Backbones whose names and shapes weights of unknown architecture are compared with, after `ARCHITECTURES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Contents of a `config.json` beside weights."""

    architectures: tuple[str, ...] = ()  # candidates: a name may be in `ARCHITECTURES`, in timm, or in both
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_model_config(path: Path) -> ModelConfig:
    """Read architecture, mean and std from `config.json`, as timm and Turnmark write it.

    Mean and std are also read from a `preprocessor_config.json` beside it, as transformers writes it.
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


def load_weights(
    state: dict[str, Tensor], architecture: str | None = None, hints: ModelConfig = ModelConfig()
) -> tuple[str, Encoder]:
    """Return the architecture of weights, and the encoder with these weights.

    Args:
        state: the weights.
        architecture: name of the architecture; None to infer it.
        hints: contents of `config.json`: the architecture, and mean and std for weights that include none.

    Raises:
        SuspectError: if no architecture fits. The hint names one that fits better than the given one.
    """
    if architecture is None and hints.architectures:
        architecture = next((n for n in hints.architectures if _fits(state, n)), hints.architectures[0])
    named = architecture if architecture is not None else _matching(state)
    if not is_architecture(named):
        raise SuspectError(f"unknown architecture {printable(named)!r}", known_architectures(named))
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
            f"did you mean {better}?" if better else f"name the right one with --arch, {known_architectures()}",
        )
    encoder = make_encoder(named)
    filled = {k: v for k, v in given.items() if not v.is_meta}  # weights of timm or torchvision: no mean and std
    for name, value in (("mean", hints.mean), ("std", hints.std)):
        if value is not None and name not in filled:
            filled[name] = torch.tensor(value).reshape(1, 3, 1, 1)
    encoder.load_state_dict({**encoder.state_dict(), **filled})
    return named, encoder.eval()


def _expected(name: str) -> dict[str, Tensor]:
    """Return names and shapes of an architecture, without allocating it: a small file may name a huge network."""
    try:
        with torch.device("meta"):
            return make_encoder(name).state_dict()
    except Exception as e:  # the thousand models of timm raise errors of many types
        raise SuspectError(f"{name} cannot be made ({printable(e, 120)})", "export the model to ONNX") from e


def _fits(state: dict[str, Tensor], name: str) -> bool:
    try:
        expected = _expected(name)
    except SuspectError:
        return False
    given = state if name in ARCHITECTURES else as_encoder_state(state, expected)
    return {k: v.shape for k, v in given.items()} == {k: v.shape for k, v in expected.items()}


def _matching(state: dict[str, Tensor]) -> str:
    """Return the first architecture with these names and shapes."""
    for name in (*ARCHITECTURES, *COMMON):
        if _fits(state, name):
            return name
    first = printable(next(iter(state))) if state else "none"
    raise SuspectError(
        f"suspect: {len(state)} tensors fit no known architecture (first: {first})",
        f"name it with --arch, {known_architectures()}; or export the model to ONNX",
    )
