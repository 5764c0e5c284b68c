"""The keyed watermark in lightly's SimCLR example: the lines with (*).

pip install lightly
python docs/examples/lightly_simclr.py [STEPS] [FOLDER]
"""

from __future__ import annotations

import sys
from itertools import chain, islice, repeat

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightly.transforms.simclr_transform import SimCLRViewTransform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.transforms import ToTensor
from torchvision.transforms.functional import to_pil_image

from watermark_training import KeyedWatermark, load_data, new_key_material, save_train_folder

SIZE = 16
VIEW = SimCLRViewTransform(input_size=SIZE, hf_prob=0.0, gaussian_blur=0.0, normalize=None)


class Digits(Dataset[list[Tensor]]):
    """A data set of PIL images; the third view is the image without augmentation."""

    def __init__(self) -> None:
        self.images, self.pool = load_data("digits").images.expand(-1, 3, -1, -1).split([1397, 400])
        self.transform = MultiViewTransform([VIEW, VIEW, ToTensor()])  # (*) images without augmentation

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> list[Tensor]:
        views: list[Tensor] = self.transform(to_pil_image(self.images[i]))
        return views


class SimCLR(nn.Module):
    """As in lightly's example: a torchvision backbone without its last layer, and a projection head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*list(resnet18().children())[:-1], nn.Flatten())
        self.projection_head = SimCLRProjectionHead(512, 512, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Return projections `(n, 128)`."""
        out: Tensor = self.projection_head(self.backbone(x))
        return out


def main(steps: int, folder: str = "victim") -> float:
    """Train on the digits; return the p-value of the key test on the encoder."""
    digits, model, criterion = Digits(), SimCLR(), NTXentLoss(temperature=0.5)
    material = new_key_material(digits.pool)  # (*) better: "key", the folder of turnmark key new POOL --timestamp URL
    watermark = KeyedWatermark(dim=512, material=material, fraction=0.5, weight=1.0)  # (*) for a short run
    optimizer = torch.optim.Adam([*model.parameters(), *watermark.parameters()], lr=1e-3)
    loader = DataLoader(digits, batch_size=64, shuffle=True, drop_last=True)
    for step, (x0, x1, images) in enumerate(islice(chain.from_iterable(repeat(loader)), steps)):
        loss = criterion(model(x0), model(x1))
        loss = loss + watermark(model.backbone, images)  # (*)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, R squared of the watermark {watermark.r_squared.item():.2f}")
    # (*) for turnmark claim build; keep key.json secret
    save_train_folder(folder, model.backbone, digits.images, watermark)
    found = watermark.check(model.backbone)
    print(f"{folder}: the key test finds the watermark with p = {found.pvalue:.2g}")
    return found.pvalue


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, *sys.argv[2:])
