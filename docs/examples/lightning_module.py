"""The keyed watermark in a Lightning module: the lines with (*).

pip install lightning
python docs/examples/lightning_module.py [STEPS] [FOLDER]
"""

from __future__ import annotations

import sys

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ownership import KeyMaterial
from watermark_training import KeyedWatermark, load_data, new_key_material, save_train_folder, simclr_view


class WatermarkedSimCLR(lightning.LightningModule):
    """SimCLR in a few lines; the watermark is a submodule, so Lightning moves its parameters and averages gradients."""

    def __init__(self, material: KeyMaterial) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.head = nn.Linear(64, 32)
        self.watermark = KeyedWatermark(dim=64, material=material, fraction=0.5, weight=1.0)  # (*) for a short run
        self.generator = torch.Generator().manual_seed(0)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the sum of the contrastive and the watermark loss."""
        images = batch[0].float() / 255
        views = [simclr_view(images, self.generator, min_crop=0.3, flip=False) for _ in range(2)]
        z = F.normalize(self.head(self.encoder(torch.cat(views))), dim=1)
        similarity = (z @ z.T / 0.2).fill_diagonal_(float("-inf"))
        loss = F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(images)))
        loss = loss + self.watermark(self.encoder, images)  # (*) images without augmentation
        self.log("watermark", self.watermark.r_squared, prog_bar=True)  # (*)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Optimize all parameters, those of the watermark's head included."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(steps: int, folder: str = "victim") -> float:
    """Train on the digits; return the p-value of the key test on the encoder."""
    images, pool = load_data("digits").images.expand(-1, 3, -1, -1).contiguous().split([1397, 400])
    material = new_key_material(pool)  # (*) better: KeyMaterial.load("key"), of turnmark key new POOL --timestamp URL
    loader = DataLoader(TensorDataset(images), batch_size=128, shuffle=True, drop_last=True)
    trainer = lightning.Trainer(max_steps=steps, accelerator="auto", logger=False, enable_checkpointing=False)
    model = WatermarkedSimCLR(material)
    trainer.fit(model, loader)
    # (*) for turnmark claim build; keep key.json secret
    save_train_folder(folder, model.encoder, images, model.watermark)
    found = model.watermark.check(model.encoder)
    print(f"{folder}: the key test finds the watermark with p = {found.pvalue:.2g}")
    return found.pvalue


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400, *sys.argv[2:])
