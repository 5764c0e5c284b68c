"""Transforms of weights: the file of a surrogate changes, its usefulness nearly does not."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn

from attacks_for_eval.evasion.attacker import Attacker
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.training import train


def copy_of(encoder: EncoderLike) -> nn.Module:
    """Return a copy of a module in eval mode, or raise TrainingError: an ONNX encoder has no weights to change."""
    if not isinstance(encoder, nn.Module):
        raise TrainingError("the weights of this encoder cannot be changed", "load it from weights, not from ONNX")
    return copy.deepcopy(encoder).eval()


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights of a module that have two axes or more, in order."""
    return [p for p in module.parameters() if p.ndim >= 2]


def prune(encoder: EncoderLike, _attacker: Attacker, percent: float = 30) -> nn.Module:
    """Return a copy with the smallest `percent` of the weights of every layer set to zero (magnitude pruning)."""
    out = copy_of(encoder)
    with torch.no_grad():
        for p in matrices(out):
            count = int(percent / 100 * p.numel())
            if count:
                limit = p.abs().flatten().kthvalue(count).values
                p.masked_fill_(p.abs() <= limit, 0.0)
    return out


def quantize(encoder: EncoderLike, _attacker: Attacker, bits: float = 8) -> nn.Module:
    """Return a copy with the weights of every layer on 2^bits - 1 levels, symmetric, with one scale a layer."""
    out = copy_of(encoder)
    levels = 2 ** (int(bits) - 1) - 1
    with torch.no_grad():
        for p in matrices(out):
            step = (p.abs().max() / levels).clamp_min(1e-12)
            p.copy_((p / step).round() * step)
    return out


def drop_channels(encoder: EncoderLike, _attacker: Attacker, deviations: float = 3) -> nn.Module:
    """Return a copy without channels whose Lipschitz bound is `deviations` standard deviations above its layer's mean.

    The bound of a channel is the largest singular value of its kernel, times what the normalization multiplies by.

    References:
        [1] Zheng et al., Data-free Backdoor Removal based on Channel Lipschitzness, ECCV 2022, algorithm 1.
    """
    out = copy_of(encoder)
    layers = [m for m in out.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    with torch.no_grad():
        for conv, norm in pairwise(layers):
            if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None):
                continue
            kernels = conv.weight.flatten(2)  # (out, in, height x width)
            scale = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
            bound = torch.linalg.matrix_norm(kernels, ord=2) * scale
            dropped = bound > bound.mean() + deviations * bound.std()
            norm.weight[dropped] = 0.0
            norm.bias[dropped] = 0.0
    return out


def halve(encoder: EncoderLike, _attacker: Attacker) -> nn.Module:
    """Return a copy with its weights rounded to float16 precision."""
    out = copy_of(encoder)
    with torch.no_grad():
        for p in out.parameters():
            p.copy_(p.half().float())
    return out


def fine_tune(encoder: Encoder, images: Tensor, config: TrainConfig, *, progress: Progress = silent) -> Encoder:
    """Return a copy fine-tuned with SimCLR on the attacker's images: the transform that changes weights most.

    Args:
        encoder: surrogate of a known architecture.
        images: `(n, c, h, w)` uint8.
        config: epochs, learning rate, views; its architecture must be the encoder's, its watermark "none".
        progress: called after every step.

    Raises:
        TrainingError: if the architecture differs, or the loss is no longer finite.
    """
    return train(images, config, start=encoder, callbacks=Callbacks(progress=progress)).encoder
