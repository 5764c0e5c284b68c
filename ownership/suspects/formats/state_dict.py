"""Load bare weights into their architecture: given, stated in `config.json`, or inferred from names and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ownership.encoders.architectures import ARCHITECTURES, Encoder, is_architecture, known_architectures, make_encoder
from ownership.errors import SuspectError
from ownership.io.text import printable
from ownership.suspects.formats.checkpoint import Entry, entries, picked, prefixes, unwrapped
from ownership.suspects.formats.layouts import Layout, layouts_of, settings_of
from ownership.suspects.formats.model_config import ModelConfig

COMMON = (
    *(f"torchvision:{m}" for m in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2")),
    *(f"torchvision:{m}" for m in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")),
    *(f"torchvision:{m}" for m in ("vit_b_16", "vit_b_32", "convnext_tiny", "densenet121", "vgg16_bn")),
    *(f"timm:{m}" for m in ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "resnet26")),
)
"""Backbones whose names and shapes weights of unknown architecture are compared with, after `ARCHITECTURES`."""

NO_HINTS = ModelConfig()

Named = Sequence[tuple[str, dict[str, Tensor]]]
"""The mappings of a checkpoint: path and tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """Mean and standard deviation that images are normalised by before the weights' first layer."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    stated: bool  # in a file beside the weights; else they are the library's, and a choice


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Weights:
    """An encoder made of bare weights.

    Attributes:
        architecture: Its name, with settings.
        encoder: The encoder. Without normalisation if the weights hold none.
        entry: Name of the entry in the checkpoint.
        others: Names of further entries with other weights that fit an architecture.
        left_aside: In words, the tensors of the file that belong to no encoder that was found; empty if there are none.
        normalisation: What the weights do not hold; None if they do.
    """

    architecture: str
    encoder: Encoder
    entry: str
    others: tuple[str, ...] = ()
    left_aside: str = ""
    normalisation: Normalisation | None = None

    def normalised(self) -> Encoder:
        """Return the encoder of images in `[0, 1]`, with its normalisation."""
        if (found := self.normalisation) is not None:
            self.encoder.mean.copy_(torch.tensor(found.mean).reshape(1, 3, 1, 1))
            self.encoder.std.copy_(torch.tensor(found.std).reshape(1, 3, 1, 1))
        return self.encoder


def load_weights(
    named: Named, architecture: str | None = None, hints: ModelConfig = NO_HINTS, entry: str | None = None
) -> Weights:
    """Return the encoder in a checkpoint: the wanted entry, or the first that fits an architecture.

    Args:
        named: The checkpoint's mappings.
        architecture: Name of the architecture; None to infer it.
        hints: Contents of `config.json`: architectures, mean and std, size.
        entry: Name of the entry, or its beginning.

    Raises:
        SuspectError: If no architecture fits. The hint names one that fits better than the given one.
    """
    if architecture is not None and not is_architecture(architecture):
        raise SuspectError(f"unknown architecture {printable(architecture)!r}", known_architectures(architecture))
    named = [(path, unwrapped(state)) for path, state in named]
    candidates = (architecture,) if architecture else hints.architectures or (*ARCHITECTURES, *COMMON)
    found = tuple(_fitting(named, candidates, hints))
    if not found:
        raise _no_fit(named, architecture or next(iter(hints.architectures), None))
    chosen, *others = picked([(layout.architecture, e) for layout, e in found], entry)
    layout = next(x for x, e in found if e is chosen[1])
    made = _filled(layout, chosen[1], hints)
    return replace(made, others=tuple(e.name for _, e in others), left_aside=_left_aside(named, found))


def _fitting(named: Named, candidates: Iterable[str], hints: ModelConfig) -> Iterable[tuple[Layout, Entry]]:
    """Yield every entry that fits an architecture, with the first that it fits."""
    names: set[str] = set()
    used: set[int] = set()  # tensors of encoders that were found: of an own encoder, `body` alone would fit as well
    tried = ((path, state, name) for name in candidates for path, state in named)
    for path, state, name in tried:
        layouts = (layout for setting in settings_of(name, state, hints.global_pool) for layout in layouts_of(setting))
        for layout, entry in ((x, e) for x in layouts for e in entries(state, path, x.expected, x.names)):
            tensors = {id(tensor) for tensor in entry.state.values()}
            if entry.name not in names and not tensors <= used:
                names.add(entry.name)
                used |= tensors
                yield layout, entry


def _left_aside(named: Named, found: Sequence[tuple[Layout, Entry]]) -> str:
    """Return how many tensors are in no encoder: an encoder of an unknown architecture may be among them."""
    used = {id(tensor) for _, entry in found for tensor in entry.state.values()}
    states = [state for path, state in named if not path.startswith("optim")]
    rest = [name for state in states for name, tensor in state.items() if id(tensor) not in used]
    whole = sum(map(len, states))
    return f"{len(rest)} of {whole} tensors, the first {printable(rest[0], 80)}" if rest else ""


def _filled(layout: Layout, entry: Entry, hints: ModelConfig) -> Weights:
    """Return the encoder of a layout with an entry's weights."""
    encoder = make_encoder(layout.architecture)
    normalisation = None
    if not layout.normalised:
        mean, std = (tuple(x.flatten().tolist()) for x in (encoder.mean, encoder.std))
        stated = hints.mean is not None and hints.std is not None
        normalisation = Normalisation(mean=hints.mean or mean, std=hints.std or std, stated=stated)
        encoder.mean.zero_()
        encoder.std.fill_(1.0)
    encoder.load_state_dict({**encoder.state_dict(), **entry.state})
    return Weights(
        architecture=layout.architecture, encoder=encoder.eval(), entry=entry.name, normalisation=normalisation
    )


def fixed_size(body: nn.Module) -> tuple[int, int] | None:
    """Return height and width of the only images that a backbone takes; None if it takes others."""
    embed = getattr(body, "patch_embed", None)
    if embed is not None and getattr(embed, "strict_img_size", False) and (size := embed.img_size) is not None:
        return int(size[0]), int(size[1])
    side = getattr(body, "image_size", None)  # torchvision's transformers
    return (side, side) if isinstance(side, int) else None


def _no_fit(named: Named, wanted: str | None) -> SuspectError:
    """Return the error for weights that fit no architecture, or not the wanted one."""
    if not named:
        return SuspectError("suspect: the file holds no named tensors", "save model.state_dict()")
    path, state = max(named, key=lambda x: len(x[1]))
    where = f" in {printable(path, 80)}" if path else ""
    if wanted is None:
        first = printable(next(iter(state)))
        return SuspectError(
            f"suspect: {len(state)} tensors{where} fit no known architecture (first: {first})",
            f"name it with --arch, {known_architectures()}; or export the model to ONNX",
        )
    expected = layouts_of(wanted)[0].expected
    missing = [k for k in expected if k not in state]
    unexpected = [k for k in state if k not in expected]
    misshaped = [k for k in expected if k in state and state[k].shape != expected[k]]
    first = (missing or misshaped or unexpected or ["?"])[0]
    better = next((n for n in (*ARCHITECTURES, *COMMON) if n != wanted and _fits(named, n)), None)
    return SuspectError(
        f"suspect does not fit {wanted}: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
        f"{len(misshaped)} of another shape{where}; first: {printable(first)}",
        f"did you mean {better}?" if better else f"name the right one with --arch, {known_architectures()}",
    )


def _fits(named: Named, name: str) -> bool:
    return any(list(prefixes(state, layout.expected)) for _, state in named for layout in layouts_of(name))
