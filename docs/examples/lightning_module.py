"""The rotation watermark in a Lightning module: the lines with (*).

pip install 'turnmark[examples]'
python docs/examples/lightning_module.py [STEPS]
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from watermark_training import RotationWatermark, load_data, simclr_view


class WatermarkedSimCLR(lightning.LightningModule):
    """SimCLR in a few lines; the watermark is a submodule, so Lightning moves and saves its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.head = nn.Linear(64, 32)
        self.watermark = RotationWatermark(dim=64, fraction=0.5)  # (*) a fresh secret key; 0.5 for a short run
        self.generator = torch.Generator().manual_seed(0)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the sum of the contrastive and the watermark loss."""
        images = batch[0].float() / 255
        views = [simclr_view(images, self.generator, min_crop=0.3, flip=False) for _ in range(2)]
        z = F.normalize(self.head(self.encoder(torch.cat(views))), dim=1)
        similarity = (z @ z.T / 0.2).fill_diagonal_(float("-inf"))
        loss = F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(images)))
        loss = loss + self.watermark(self.encoder, images)  # (*) images without augmentation
        self.log("watermark", self.watermark.accuracy, prog_bar=True)  # (*)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Optimize all parameters, those of the watermark's predictor included."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(steps: int) -> float:
    """Train on the digits; return the watermark accuracy at the end."""
    images = load_data("digits").images.expand(-1, 3, -1, -1).contiguous()
    loader = DataLoader(TensorDataset(images), batch_size=128, shuffle=True, drop_last=True)
    out = Path(mkdtemp(prefix="turnmark-example-"))
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="auto", logger=False, enable_checkpointing=False, default_root_dir=out
    )
    model = WatermarkedSimCLR()
    trainer.fit(model, loader)
    model.watermark.refit(model.encoder, images)  # (*) fits the predictor to the finished encoder
    model.watermark.save(out / "predictor.safetensors")  # (*) keep this file secret
    print(f"the key is in {out / 'predictor.safetensors'}")
    return float(model.watermark.accuracy)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
