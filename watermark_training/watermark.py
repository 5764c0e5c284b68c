"""The rotation watermark for any training loop: key, predictor and loss."""

from __future__ import annotations

import json
import math
import secrets
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ownership.encoders.images import EncoderLike, as_input, as_uint8, represent, three_channels
from ownership.errors import OwnershipError, TrainingError
from ownership.io.files import write_bytes
from ownership.io.text import printable
from ownership.watermark import RotationPredictor, WatermarkKey, rotated_pairs, secret_key, stored_predictor


class RotationWatermark(nn.Module):
    """Trains an encoder to carry a secret rotation watermark, beside its other training objective.

    Three lines in a training loop, and two at its end::

        watermark = RotationWatermark(dim=512)                     # a fresh secret key
        optimizer = torch.optim.Adam([*encoder.parameters(), *watermark.parameters()])
        loss = contrastive_loss + watermark(encoder, images)       # images (b, 3, h, w), float in [0, 1]; every step
        watermark.refit(encoder, train_images)                     # at the end; uint8 training images
        watermark.save(folder / "predictor.safetensors")           # secret, mode 0600

    Where one forward pass serves both losses, `views` returns the rotated images and `loss` takes their
    representations. Pass images that are not augmented: only the rotation may distinguish the two kinds of views.

    Args:
        dim: length d of a representation.
        key: secret key; a fresh one, from the system's randomness, if not given.
        fraction: fraction of each batch that is shown rotated, in two views an image. 0.08 adds a twelfth to the
            views of SimCLR and suffices for a long training; a short one needs 0.5.
        weight: weight of the loss.
        train_predictor: whether the predictor is trained with the encoder (the paper's text). Otherwise it keeps the
            weights drawn from the key, and only the encoder is trained (the paper's released code).

    Attributes:
        accuracy: accuracy of the predictor on the last batch's views, a scalar tensor; chance is 0.5.

    Raises:
        TrainingError: if `fraction` is not in (0, 1].

    References:
        [1] The paper, section 5.1.
    """

    METRICS = ("watermark_loss", "watermark_accuracy")

    def __init__(
        self,
        dim: int,
        key: WatermarkKey | None = None,
        *,
        fraction: float = 0.08,
        weight: float = 1.0,
        train_predictor: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < fraction <= 1:
            raise TrainingError(f"fraction is {fraction}", "above 0, at most 1")
        self.key = fresh_key() if key is None else key
        self.fraction, self.weight = fraction, weight
        self.predictor = RotationPredictor(dim, self.key.predictor_seed).requires_grad_(train_predictor)
        self.accuracy = torch.zeros(())
        self._generator = torch.Generator().manual_seed(secrets.randbits(63))

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return rotated views of the first `fraction` of a batch, and the label of each rotation.

        Args:
            images: `(b, c, h, w)` float in `[0, 1]`, not augmented.
            generator: source of the angles (CPU); the module's own if not given.

        Returns:
            Views `(2 k, c, h, w)` and labels `(2 k,)`, k = ceil(fraction b).
        """
        some = images[: math.ceil(len(images) * self.fraction)]
        rotated, labels, _ = rotated_pairs(some, self.key, generator or self._generator)
        return rotated, labels

    def loss(self, representations: Tensor, labels: Tensor) -> Tensor:
        """Return `weight` times the predictor's cross-entropy on representations `(2 k, d)` of the views."""
        logits = self.predictor(representations).float()
        self.accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return self.weight * F.cross_entropy(logits, labels)

    @property
    def learned(self) -> Tensor:
        """`accuracy`, by a name that all watermarks have."""
        return self.accuracy

    def trained(self) -> dict[str, nn.Module]:
        """Return the module that is trained with the encoder, by name."""
        return {"predictor": self.predictor}

    def forward(self, encoder: EncoderLike, images: Tensor) -> Tensor:
        """Return the loss on images `(b, c, h, w)` in `[0, 1]`: rotate them, represent them, predict the rotation."""
        rotated, labels = self.views(images)
        return self.loss(encoder(three_channels(rotated)), labels)

    def refit(self, encoder: EncoderLike, images: Tensor, base_encoder: EncoderLike | None = None) -> None:
        """Replace the predictor by one that takes pairs, fitted to the finished encoder (`fitted_predictor`).

        A predictor that is not trained stays as the key drew it. Do not train with this module afterwards.

        Args:
            encoder: trained.
            images: `(n, c, h, w)` uint8, what it was trained on.
            base_encoder: encoder that training started from, if others may have it too (docs/adr/0023).
        """
        if not any(p.requires_grad for p in self.predictor.parameters()):
            return
        self.predictor = fitted_predictor(encoder, self.key, images, base_encoder=base_encoder)

    def save(self, path: Path | str) -> None:
        """Write the predictor with the key in its header, mode 0600: `build_claim` needs both."""
        path = Path(path)
        save_predictor(self.predictor, self.key, path)


REFIT_IMAGES, REFIT_EPOCHS, REFIT_BATCH = 10_000, 50, 512
"""Fitting of a predictor: most images, epochs over four views of each, views a step."""


def fitted_predictor(
    encoder: EncoderLike,
    key: WatermarkKey,
    images: Tensor,
    *,
    noise: float = 1.0,
    pairs: bool = True,
    base_encoder: EncoderLike | None = None,
) -> RotationPredictor:
    """Return a rotation predictor fitted to a finished encoder's representations with noise (docs/adr/0020, 0021).

    A predictor that is trained while the encoder changes also relies on directions of low variance, which a surrogate
    copies worst. Noise makes it rely on what many directions agree on. The same key, encoder and images give the same
    predictor.

    Args:
        encoder: trained; called in eval mode.
        key: secret key.
        images: `(n, c, h, w)` uint8, what it was trained on; at most 10,000 of them, drawn by the key, are shown in
            four views each.
        noise: standard deviation of the noise, as a multiple of that of the representations scaled to length 1.
        pairs: whether the predictor takes the representation of the unrotated image beside that of the rotated one.
        base_encoder: encoder with representations of the same length; the predictor is fitted to give 1/2 on them.
    """
    generator = torch.Generator().manual_seed(key.predictor_seed)
    some = torch.randperm(len(images), generator=generator)[:REFIT_IMAGES].sort().values
    shown = images[some.to(images.device)]
    targets, parts, scales = [], [], []
    for i, source in enumerate([encoder] if base_encoder is None else [encoder, base_encoder]):
        responses, labels = _rotated_representations(source, key, shown, generator, pairs=pairs, times=2)
        unit = F.normalize(responses.reshape(len(responses), -1, responses.shape[1] // (2 if pairs else 1)), dim=2)
        parts.append(unit)
        scales.append(noise * (unit[:, 0] - unit[:, 0].mean(0)).square().mean().sqrt())
        targets.append(F.one_hot(labels, 2).float() if i == 0 else torch.full((len(labels), 2), 0.5))
    predictor = RotationPredictor(parts[0].shape[2], key.predictor_seed, pairs=pairs)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(REFIT_EPOCHS):
        for batch in torch.split(torch.randperm(len(parts[0]), generator=generator), REFIT_BATCH):
            loss = torch.zeros(())
            for part, scale, target in zip(parts, scales, targets, strict=True):
                x = part[batch].flatten(1)
                noisy = x + scale * torch.randn(x.shape, generator=generator)
                loss = loss + F.cross_entropy(predictor(noisy), target[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return predictor.eval()


def watermark_rate(
    encoder: EncoderLike, predictor: RotationPredictor, key: WatermarkKey, images: Tensor, *, seed: int = 0
) -> float:
    """Return the watermark success rate: accuracy of the predictor on two rotated views of each image.

    Args:
        encoder: the victim, or a suspect whose representations have the same length.
        predictor: the owner's.
        key: the owner's.
        images: `(n, c, h, w)` uint8.
        seed: of the angles.

    References:
        [1] The paper, section 5.1 and Table 5.
    """
    generator = torch.Generator().manual_seed(seed)
    responses, labels = _rotated_representations(encoder, key, images, generator, pairs=predictor.pairs)
    with torch.inference_mode():
        return float((predictor(responses).argmax(1) == labels).float().mean())


def _rotated_representations(
    encoder: EncoderLike, key: WatermarkKey, images: Tensor, generator: torch.Generator, *, pairs: bool, times: int = 1
) -> tuple[Tensor, Tensor]:
    """Representations of two rotated views an image, `times` over: `(2 n, d)` or, as pairs, `(2 n, 2 d)`; labels."""
    responses, labels = [], []
    for some in torch.split(images, 256):
        unrotated = represent(encoder, some) if pairs else torch.empty(len(some), 0)
        for _ in range(times):
            views, y, _ = rotated_pairs(as_input(some), key, generator)
            responses.append(torch.cat([represent(encoder, as_uint8(views)), unrotated.repeat(2, 1)], dim=1))
            labels.append(y.cpu())
    return torch.cat(responses), torch.cat(labels)


def save_predictor(predictor: RotationPredictor, key: WatermarkKey, path: Path) -> None:
    """Write a predictor with the key in its header, mode 0600."""
    state = {name: value.detach().cpu().contiguous() for name, value in predictor.state_dict().items()}
    # one entry: safetensors writes several in any order, and the same run is to give the same bytes
    stated = json.dumps({"dim": predictor.dim, "key": key.to_dict()})
    write_bytes(path, save(state, metadata={"predictor": stated}), secret=True)


def load_predictor(path: Path) -> tuple[RotationPredictor, WatermarkKey] | tuple[None, None]:
    """Return the predictor and the key that `save_predictor` wrote; two None if there is no such file.

    Raises:
        OwnershipError: if the file is damaged or is not a predictor.
    """
    if not path.is_file():
        return None, None
    try:
        with safe_open(path, framework="pt") as f:
            stated = json.loads((f.metadata() or {})["predictor"])
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
        key = WatermarkKey.from_dict(stated["key"])
        predictor = stored_predictor(tensors, int(stated["dim"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, IndexError, OSError) as e:
        raise OwnershipError(f"{printable(path, 300)} is damaged or is not a predictor", "restore the original") from e
    return predictor, key


def fresh_key() -> WatermarkKey:
    """Return a secret key from the system's randomness."""
    return secret_key(torch.Generator().manual_seed(secrets.randbits(63)))
