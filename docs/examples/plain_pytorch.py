"""The rotation watermark in a plain PyTorch loop (SimCLR): the lines with (*).

python docs/examples/plain_pytorch.py [STEPS]
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from watermark_training import RotationWatermark, load_data


def network() -> nn.Sequential:
    """Return an encoder from images `(n, 3, h, w)` to representations `(n, 64)`: any module will do."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def augmented(images: Tensor) -> Tensor:
    """Return views of your own, here shifted, scaled in brightness and noisy; only the watermark rotates images."""
    shift = torch.randint(-2, 3, (2,)).tolist()
    brightness = 0.7 + 0.6 * torch.rand(len(images), 1, 1, 1)
    return (torch.roll(images, shift, (2, 3)) * brightness + 0.05 * torch.randn_like(images)).clamp(0, 1)


def main(steps: int) -> float:
    """Train on the digits; return the watermark accuracy at the end."""
    stored = load_data("digits").images  # uint8
    data = stored.float().expand(-1, 3, -1, -1) / 255
    encoder, head = network(), nn.Linear(64, 32)
    watermark = RotationWatermark(dim=64, fraction=0.5)  # (*) a fresh secret key; 0.5 for a short run
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *head.parameters(), *watermark.parameters()],  # (*) the predictor is trained too
        lr=2e-3,
    )
    for step in range(steps):
        images = data[torch.randint(len(data), (128,))]
        z = F.normalize(torch.cat([head(encoder(augmented(images))) for _ in range(2)]), dim=1)
        similarity = (z @ z.T / 0.2).fill_diagonal_(float("-inf"))
        loss = F.cross_entropy(similarity, torch.arange(256).roll(128))
        loss = loss + watermark(encoder, images)  # (*) images without augmentation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, watermark accuracy {watermark.accuracy.item():.2f}")
    out = Path(mkdtemp(prefix="turnmark-example-"))
    watermark.refit(encoder, stored)  # (*) fits the predictor to the finished encoder
    watermark.save(out / "predictor.safetensors")  # (*) keep this file secret
    print(f"the key is in {out / 'predictor.safetensors'}")
    return float(watermark.accuracy)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
