"""The rotation watermark in a Lightning module: the lines that are marked (*).

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

from watermark_training.augment import simclr_view
from watermark_training.data import load_data
from watermark_training.watermark import RotationWatermark


class Marked(lightning.LightningModule):
    """SimCLR in a few lines; the mark's parameters are the module's own, so Lightning moves and saves them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.head = nn.Linear(64, 32)
        self.watermark = RotationWatermark(dim=64, share=0.5)  # (*) a fresh secret key; a short run
        self.generator = torch.Generator().manual_seed(0)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """One loss: contrastive and mark."""
        images = batch[0].float() / 255
        views = [simclr_view(images, self.generator, min_crop=0.3, flip=False) for _ in range(2)]
        z = F.normalize(self.head(self.encoder(torch.cat(views))), dim=1)
        similarity = (z @ z.T / 0.2).fill_diagonal_(float("-inf"))
        loss = F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(images)))
        loss = loss + self.watermark(self.encoder, images)  # (*) images as they are
        self.log("watermark", self.watermark.accuracy, prog_bar=True)  # (*)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Everything that learns, the mark's predictor too."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(steps: int) -> float:
    """Trains on the digits; returns how well the mark is read at the end."""
    images = load_data("digits").images.expand(-1, 3, -1, -1).contiguous()
    loader = DataLoader(TensorDataset(images), batch_size=128, shuffle=True, drop_last=True)
    out = Path(mkdtemp(prefix="turnmark-example-"))
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="auto", logger=False, enable_checkpointing=False, default_root_dir=out
    )
    model = Marked()
    trainer.fit(model, loader)
    model.watermark.refit(model.encoder, images)  # (*) an encoder trained from the start is read better so
    model.watermark.save(out / "predictor.safetensors")  # (*) the owner's secret
    print(f"the key is in {out / 'predictor.safetensors'}")
    return float(model.watermark.accuracy)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
