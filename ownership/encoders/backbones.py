"""Any image model of torchvision or timm by name, without its classifier, as an `Encoder`.

    torchvision:resnet50     timm:vit_tiny_patch16_224     timm:vit_tiny_patch16_224?img_size=96&global_pool=avg

A backbone is made with random weights; weights come from a file or from training. Names are looked up in the libraries'
own lists, so that a name from an untrusted file can refer to neither a hub nor a folder.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from ownership.io.extras import require

HEADS = ("fc.", "classifier.", "head.", "heads.", "head_drop.", "AuxLogits.", "aux1.", "aux2.")
"""Prefixes of the classifier's weights in the two libraries; `as_encoder_state` leaves them out."""

_SETTINGS = re.compile(r"img_size=[1-9]\d{0,3}(&global_pool=(avg|token))?|global_pool=(avg|token)")


@lru_cache(maxsize=4)
def backbones(library: str) -> frozenset[str]:
    """Return the names `torchvision:MODEL` or `timm:MODEL` of a library; none for another library."""
    if library == "torchvision":
        require("torchvision")
        from torchvision import models

        # SqueezeNet ends in a convolution over classes: there is no representation before it to cut at
        listed = [m for m in models.list_models(module=models) if not m.startswith("squeezenet")]
    elif library == "timm":
        require("timm")
        import timm

        listed = timm.list_models()
    else:
        listed = []
    return frozenset(f"{library}:{model}" for model in listed)


def is_backbone(name: str) -> bool:
    """Return whether a name is `torchvision:MODEL` or `timm:MODEL` for a model that the library lists.

    A model of timm may have settings: `?img_size=96`, `?global_pool=avg`, or both with `&` between.
    """
    model, mark, settings = name.partition("?")
    return model in backbones(model.partition(":")[0]) and (not mark or _settings(settings) is not None)


def _settings(text: str) -> dict[str, Any] | None:
    """Return the settings of a model of timm; None if there are others than the two."""
    if not _SETTINGS.fullmatch(text):
        return None
    found = dict(part.split("=") for part in text.split("&"))
    return {name: int(value) if name == "img_size" else value for name, value in found.items()}


def make_backbone(name: str) -> tuple[nn.Module, int, tuple[float, ...], tuple[float, ...]]:
    """Return a new model without its classifier, the dimension of its representation, and its input's mean and std.

    Args:
        name: a name for which `is_backbone` is true.
    """
    library, _, model = name.partition(":")
    model, _, settings = model.partition("?")
    if library == "timm":
        require("timm")
        import timm

        made: Any = timm.create_model(model, pretrained=False, num_classes=0, **(_settings(settings) or {}))
        dim = int(getattr(made, "head_hidden_size", None) or made.num_features)
        return made, dim, tuple(made.pretrained_cfg["mean"]), tuple(made.pretrained_cfg["std"])
    from torchvision import models

    extra = {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}
    body = models.get_model(model, weights=None, **extra)
    path, last = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, attribute = path.rpartition(".")
    setattr(body.get_submodule(parent), attribute, nn.Identity())
    return body, last.in_features, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def as_encoder_state(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of torchvision or timm to that of an `Encoder`: prefixed names, mean and std, no classifier.

    Args:
        state: the library's state dict. If its names begin with "body.", it is an `Encoder`'s and returned unchanged.
        expected: state dict of the new encoder, whose mean and std are used.
    """
    if any(name.startswith("body.") for name in state):
        return state
    named = {f"body.{name}": tensor for name, tensor in state.items()}
    kept = {k: v for k, v in named.items() if k in expected or not k.removeprefix("body.").startswith(HEADS)}
    return {"mean": expected["mean"], "std": expected["std"], **kept}
