"""The rotation watermark as a piece for anybody's training loop: key, predictor and loss."""

from __future__ import annotations

import json
import math
import secrets
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ownership.encoders.images import EncoderLike, as_input, as_uint8, represent, three_channels
from ownership.errors import TrainingError
from ownership.io.files import write_bytes
from ownership.watermark import RotationPredictor, WatermarkKey, rotated_pairs, secret_key


class RotationWatermark(nn.Module):
    """Teaches an encoder to carry a secret rotation watermark, beside whatever else it learns.

    Three lines in a loop of one's own (and two at the end)::

        mark = RotationWatermark(dim=512)                          # a fresh secret key
        optimizer = torch.optim.Adam([*encoder.parameters(), *mark.parameters()])
        loss = contrastive_loss + mark(encoder, images)            # images (b, 3, h, w) float in [0, 1], every step
        mark.refit(encoder, train_images)                          # at the end; uint8, what it was trained on
        mark.save(folder / "predictor.safetensors")                # secret, mode 0600

    Where one forward pass is to serve both losses, `views` gives the images and `loss` takes their representations.
    Nothing but the rotation may tell the two kinds of views apart: give images before any augmentation.

    Args:
        dim: length d of a representation.
        key: the owner's; a fresh one, from the system's randomness, if not given.
        share: of each batch that is shown rotated, two views an image; a twelfth is a twelfth more views and
            is enough for a long training, a short one needs a half.
        weight: of the loss.
        trained: whether the predictor learns with the encoder (the paper's text); else it keeps the weights drawn from
            the key's seed, and the encoder alone learns (the paper's released code).

    Attributes:
        accuracy: share of the last batch's views whose arc was told, a tensor; chance is one half.

    References:
        [1] The paper, section 5.1.
    """

    def __init__(
        self,
        dim: int,
        key: WatermarkKey | None = None,
        *,
        share: float = 0.08,
        weight: float = 1.0,
        trained: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise TrainingError(f"share is {share}", "above 0, at most 1")
        self.key = fresh_key() if key is None else key
        self.share, self.weight = share, weight
        self.predictor = RotationPredictor(dim, self.key.predictor_seed).requires_grad_(trained)
        self.accuracy = torch.zeros(())
        self._generator = torch.Generator().manual_seed(secrets.randbits(63))

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Returns rotated views of the first `share` of a batch, and which kind of arc each was turned into.

        Args:
            images: `(b, c, h, w)` float in `[0, 1]`, not augmented.
            generator: source of the angles (CPU); the mark's own if not given.

        Returns:
            `(2 k, c, h, w)` and labels `(2 k,)`, k = ceil(share b).
        """
        some = images[: math.ceil(len(images) * self.share)]
        turned, labels, _ = rotated_pairs(some, self.key, generator or self._generator)
        return turned, labels

    def loss(self, representations: Tensor, labels: Tensor) -> Tensor:
        """Returns `weight` times the cross-entropy of the predictor on representations `(2 k, d)` of the views."""
        logits = self.predictor(representations).float()
        self.accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return self.weight * F.cross_entropy(logits, labels)

    def forward(self, encoder: EncoderLike, images: Tensor) -> Tensor:
        """Returns the loss on images `(b, c, h, w)` in `[0, 1]`: turns them, asks the encoder, reads the answers."""
        turned, labels = self.views(images)
        return self.loss(encoder(three_channels(turned)), labels)

    def refit(self, encoder: EncoderLike, images: Tensor, against: EncoderLike | None = None) -> None:
        """Replaces the predictor by one that reads pairs, fitted to the finished encoder (`fitted_predictor`).

        A predictor that is not trained stays as the key drew it. Nothing can be learnt with the mark after this.

        Args:
            encoder: trained.
            images: `(n, c, h, w)` uint8, what it was trained on.
            against: what training went on from, if it did not begin with fresh weights and others may have that, too
                (docs/adr/0023).
        """
        if not any(p.requires_grad for p in self.predictor.parameters()):
            return
        self.predictor = fitted_predictor(encoder, self.key, images, against=against)

    def save(self, path: Path) -> None:
        """Writes the predictor with the key in its header, readable by the owner alone: what a claim is built with."""
        save_predictor(self.predictor, self.key, path)


REFIT_IMAGES, REFIT_PASSES, REFIT_BATCH = 10_000, 50, 512
"""Most images that a predictor is fitted to, passes over four views of each, views a step."""


def fitted_predictor(
    encoder: EncoderLike,
    key: WatermarkKey,
    images: Tensor,
    *,
    noise: float = 1.0,
    pairs: bool = True,
    against: EncoderLike | None = None,
) -> RotationPredictor:
    """Returns a rotation predictor fitted to a finished encoder, its answers with noise (docs/adr/0020, 0021).

    What learns beside a moving encoder rests on small directions of its answers, too, which are what a thief copies
    worst; under noise it must rest on what many directions agree on. The same key, encoder and images give the same
    predictor.

    Args:
        encoder: as trained; used in eval mode.
        key: the owner's.
        images: `(n, c, h, w)` uint8, what it was trained on; at most 10,000, drawn by the key, are shown in four views.
        noise: standard deviation of the noise, in units of that of the answers scaled to length 1.
        pairs: whether it reads the answer to a rotated image beside the one to the image upright.
        against: an encoder whose own answers it learns to tell nothing from: of the same length of representation.
    """
    generator = torch.Generator().manual_seed(key.predictor_seed)
    some = torch.randperm(len(images), generator=generator)[:REFIT_IMAGES].sort().values
    shown = images[some.to(images.device)]
    session = [encoder] if against is None else [encoder, against]
    responses, labels = zip(*(_shown(e, key, shown, generator, pairs=pairs, times=2) for e in session), strict=True)
    dim = responses[0].shape[1] // (2 if pairs else 1)
    parts = [F.normalize(a.reshape(len(a), -1, dim), dim=2) for a in responses]
    scales = [noise * (p[:, 0] - p[:, 0].mean(0)).square().mean().sqrt() for p in parts]
    targets = [F.one_hot(y, 2).float() if i == 0 else torch.full((len(y), 2), 0.5) for i, y in enumerate(labels)]
    predictor = RotationPredictor(dim, key.predictor_seed, pairs=pairs)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(REFIT_PASSES):
        for batch in torch.split(torch.randperm(len(parts[0]), generator=generator), REFIT_BATCH):
            loss = torch.zeros(())
            for part, scale, target in zip(parts, scales, targets, strict=True):
                x = part[batch].flatten(1)
                shaken = x + scale * torch.randn(x.shape, generator=generator)
                loss = loss + F.cross_entropy(predictor(shaken), target[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return predictor.eval()


def watermark_rate(
    encoder: EncoderLike, predictor: RotationPredictor, key: WatermarkKey, images: Tensor, *, seed: int = 0
) -> float:
    """Returns the watermark success rate: the share of rotated views of images, two each, whose label is read.

    Args:
        encoder: the victim, or a suspect whose representations are as long.
        predictor: the owner's.
        key: the owner's.
        images: `(n, c, h, w)` uint8.
        seed: of the angles.

    References:
        [1] The paper, section 5.1 and Table 5.
    """
    generator = torch.Generator().manual_seed(seed)
    responses, labels = _shown(encoder, key, images, generator, pairs=predictor.pairs)
    with torch.inference_mode():
        return float((predictor(responses).argmax(1) == labels).float().mean())


def _shown(
    encoder: EncoderLike, key: WatermarkKey, images: Tensor, generator: torch.Generator, *, pairs: bool, times: int = 1
) -> tuple[Tensor, Tensor]:
    """Responses to two rotated views an image, `times` over: `(2 n, d)` or, as pairs, `(2 n, 2 d)`; and the labels."""
    read, labels = [], []
    for some in torch.split(images, 256):
        upright = represent(encoder, some) if pairs else torch.empty(len(some), 0)
        for _ in range(times):
            views, y, _ = rotated_pairs(as_input(some), key, generator)
            read.append(torch.cat([represent(encoder, as_uint8(views)), upright.repeat(2, 1)], dim=1))
            labels.append(y.cpu())
    return torch.cat(read), torch.cat(labels)


def save_predictor(predictor: RotationPredictor, key: WatermarkKey, path: Path) -> None:
    """Writes a predictor with the key in its header, mode 0600."""
    state = {name: value.detach().cpu().contiguous() for name, value in predictor.state_dict().items()}
    # one entry: safetensors writes several in any order, and the same run is to give the same bytes
    stated = json.dumps({"dim": predictor.dim, "key": key.to_dict()})
    write_bytes(path, save(state, metadata={"predictor": stated}), secret=True)


def fresh_key() -> WatermarkKey:
    """Returns a secret key from the system's randomness."""
    return secret_key(torch.Generator().manual_seed(secrets.randbits(63)))
