"""Merging a surrogate with the checkpoint that it was started from: weights are averaged, nothing is trained.

Fingerprints of merged language models vanish at half of the weight or less (Yamabe et al., MergePrint, ACL 2025).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks_for_eval.evasion.attacker import Attacker
from attacks_for_eval.evasion.weights import copy_of
from ownership.encoders.images import EncoderLike, as_input, three_channels
from ownership.errors import TrainingError

SETTLING = 2048
"""Images that the normalization's statistics are computed on."""


def merge(encoder: EncoderLike, attacker: Attacker, percent: float = 50) -> nn.Module:
    """Return (100 - percent) % of the surrogate's weights and `percent` % of the checkpoint's, statistics settled."""
    out = copy_of(encoder)
    base = _checkpoint(out, attacker)
    share = min(percent, 100) / 100
    with torch.no_grad():
        for name, p in out.named_parameters():
            p.lerp_(base[name], share)
    return settled(out, attacker.own_images())


def ties(encoder: EncoderLike, attacker: Attacker, percent: float = 20) -> nn.Module:
    """Return the surrogate and the attacker's own encoder merged by TIES, both taken as changes of the checkpoint.

    Of each change the largest `percent` % are kept; of each weight the sign with the larger sum is elected, and the
    changes of that sign are averaged.

    References:
        [1] Yadav et al., TIES-Merging: Resolving Interference When Merging Models, NeurIPS 2023, algorithm 1.
    """
    out = copy_of(encoder)
    base, own = _checkpoint(out, attacker), dict(copy_of(attacker.own_encoder()).named_parameters())
    if {name: p.shape for name, p in own.items()} != {name: p.shape for name, p in base.items()}:
        raise TrainingError("ties merges encoders of one architecture", "train the own encoder from the checkpoint")
    with torch.no_grad():
        for name, p in out.named_parameters():
            changes = torch.stack([_trimmed(p - base[name], percent), _trimmed(own[name] - base[name], percent)])
            elected = changes.sum(0).sign()
            agreeing = changes * (changes.sign() == elected)
            count = (agreeing != 0).sum(0).clamp_min(1)
            p.copy_(base[name] + agreeing.sum(0) / count)
    return settled(out, attacker.own_images())


def settled(module: nn.Module, images: Tensor) -> nn.Module:
    """Return a module, in eval mode, after its normalization's running statistics were computed anew on images."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # the mean over all batches
    with torch.no_grad():
        for rows in torch.split(images[:SETTLING], 256):
            module.train()(three_channels(as_input(rows)))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    return module.eval()


def _trimmed(change: Tensor, percent: float) -> Tensor:
    """Return a change with all but its largest `percent` % set to zero."""
    kept = max(1, round(min(percent, 100) / 100 * change.numel()))
    smallest = change.abs().flatten().topk(kept).values[-1]
    return change * (change.abs() >= smallest)


def _checkpoint(encoder: nn.Module, attacker: Attacker) -> dict[str, Tensor]:
    base = dict(copy_of(attacker.own_checkpoint()).named_parameters())
    if {name: p.shape for name, p in encoder.named_parameters()} != {name: p.shape for name, p in base.items()}:
        raise TrainingError("the checkpoint is of another architecture", "give the one that the surrogate started from")
    return {name: p.detach() for name, p in base.items()}
