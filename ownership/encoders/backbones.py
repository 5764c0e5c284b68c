"""Any image model of torchvision or timm by name, without its classifier, as an `Encoder`.

    torchvision:resnet50     timm:vit_tiny_patch16_224

Weights never come from here: the network is made fresh, and a file fills it (or training does). Names are looked up in
the two libraries' own lists, so a name out of an untrusted file cannot reach a hub or a folder.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor, nn

HEADS = ("fc.", "classifier.", "head.", "heads.", "head_drop.", "AuxLogits.", "aux1.", "aux2.")
"""What the two libraries call a classifier; its weights in a file are left out."""


@lru_cache(maxsize=4096)
def is_backbone(name: str) -> bool:
    """Returns whether a name is `torchvision:MODEL` or `timm:MODEL` of a model that those libraries list."""
    library, _, model = name.partition(":")
    if library == "torchvision":
        from torchvision import models

        # SqueezeNet ends in a convolution over classes: there is no representation before it to cut at
        return model in models.list_models(module=models) and not model.startswith("squeezenet")
    if library == "timm":
        import timm

        return model in timm.list_models()
    return False


def make_backbone(name: str) -> tuple[nn.Module, int, tuple[float, ...], tuple[float, ...]]:
    """Returns a fresh model without its classifier, the length of its representation, and its images' mean and std.

    Args:
        name: for which `is_backbone` holds.
    """
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        made: Any = timm.create_model(model, pretrained=False, num_classes=0)
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
    """Returns a library's own state dict as that of an `Encoder`: names prefixed, no classifier, mean and std added.

    Args:
        state: as torchvision or timm write it; one whose names begin with "body." is an `Encoder`'s and kept as it is.
        expected: of the fresh encoder; its mean and std are passed on as they are.
    """
    if any(name.startswith("body.") for name in state):
        return state
    named = {f"body.{name}": tensor for name, tensor in state.items()}
    kept = {k: v for k, v in named.items() if k in expected or not k.removeprefix("body.").startswith(HEADS)}
    return {"mean": expected["mean"], "std": expected["std"], **kept}
