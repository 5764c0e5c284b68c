"""The keyed watermark in a plain PyTorch loop (SimCLR): the lines with (*).

python docs/examples/plain_pytorch.py [STEPS] [FOLDER]
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from watermark_training import KeyedWatermark, load_data, new_key_material, save_train_folder


def network() -> nn.Sequential:
    """Return an encoder from images `(n, 3, h, w)` to representations `(n, 64)`: any module will do."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def augmented(images: Tensor) -> Tensor:
    """Return views of your own, here shifted, scaled in brightness and noisy."""
    shift = torch.randint(-2, 3, (2,)).tolist()
    brightness = 0.7 + 0.6 * torch.rand(len(images), 1, 1, 1)
    return (torch.roll(images, shift, (2, 3)) * brightness + 0.05 * torch.randn_like(images)).clamp(0, 1)


def main(steps: int, folder: str = "victim") -> float:
    """Train on the digits; return the p-value of the key test on the encoder."""
    stored, pool = load_data("digits").images.split([1397, 400])  # uint8
    material = new_key_material(pool)  # (*) better: "key", the folder of turnmark key new POOL --timestamp URL
    data = stored.float().expand(-1, 3, -1, -1) / 255
    encoder, head = network(), nn.Linear(64, 32)
    watermark = KeyedWatermark(dim=64, material=material, fraction=0.5, weight=1.0)  # (*) for a short run
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *head.parameters(), *watermark.parameters()],  # (*) its linear head is trained too
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
            print(f"step {step}: loss {loss.item():.3f}, R squared of the watermark {watermark.r_squared.item():.2f}")
    save_train_folder(folder, encoder, stored, watermark)  # (*) for turnmark claim build; keep key.json secret
    found = watermark.check(encoder)
    print(f"{folder}: the key test finds the watermark with p = {found.pvalue:.2g}")
    return found.pvalue


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400, *sys.argv[2:])
