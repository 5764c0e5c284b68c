"""The rotation watermark in a SimCLR loop of one's own: the lines that are marked (*).

python docs/examples/plain_pytorch.py [STEPS]
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from watermark_training.data import load_data
from watermark_training.watermark import RotationWatermark


def network() -> nn.Sequential:
    """Images `(n, 3, h, w)` to representations `(n, 64)`: any module of yours."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def augmented(images: Tensor) -> Tensor:
    """Shifted, scaled in brightness, noisy: your own views; turning images is left to the mark."""
    shift = torch.randint(-2, 3, (2,)).tolist()
    brightness = 0.7 + 0.6 * torch.rand(len(images), 1, 1, 1)
    return (torch.roll(images, shift, (2, 3)) * brightness + 0.05 * torch.randn_like(images)).clamp(0, 1)


def main(steps: int) -> float:
    """Trains on the digits; returns how well the mark is read at the end."""
    stored = load_data("digits").images  # uint8
    data = stored.float().expand(-1, 3, -1, -1) / 255
    encoder, head = network(), nn.Linear(64, 32)
    watermark = RotationWatermark(dim=64, share=0.5)  # (*) a fresh secret key; a short run
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *head.parameters(), *watermark.parameters()],  # (*) the predictor learns along
        lr=2e-3,
    )
    for step in range(steps):
        images = data[torch.randint(len(data), (128,))]
        z = F.normalize(torch.cat([head(encoder(augmented(images))) for _ in range(2)]), dim=1)
        similarity = (z @ z.T / 0.2).fill_diagonal_(float("-inf"))
        loss = F.cross_entropy(similarity, torch.arange(256).roll(128))
        loss = loss + watermark(encoder, images)  # (*) images as they are, not augmented
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, mark {watermark.accuracy.item():.2f}")
    out = Path(mkdtemp(prefix="turnmark-example-"))
    watermark.refit(encoder, stored)  # (*) an encoder trained from the start is read better so
    watermark.save(out / "predictor.safetensors")  # (*) the owner's secret
    print(f"the key is in {out / 'predictor.safetensors'}")
    return float(watermark.accuracy)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
