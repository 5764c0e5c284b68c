"""What a training run reports: progress, advice, the metrics of each epoch; and the files made from the metrics."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownership.io.files import write_bytes
from ownership.io.progress import Progress, silent
from ownership.io.text import printable

METRICS, FIGURE, CARD = "metrics.jsonl", "training.png", "README.md"


def _ignore(_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Functions that a training run calls.

    Attributes:
        progress: after every step.
        warn: with one line of advice, if the watermark or the loss does not improve.
        epoch: with the metrics of every epoch; a resumed run first reports the epochs before the interruption.
    """

    progress: Progress = silent
    warn: Callable[[str], None] = _ignore
    epoch: Callable[[dict[str, float]], None] = _ignore


class MetricsLog:
    """Writes each epoch's metrics to `metrics.jsonl` and, where TensorBoard is installed, to `tensorboard/`.

    Args:
        folder: the train folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, list[dict[str, float]]()
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def __call__(self, row: dict[str, float]) -> None:
        """Add the metrics of one epoch."""
        self.rows.append(row)
        write_bytes(self.folder / METRICS, "".join(json.dumps(r) + "\n" for r in self.rows).encode())
        if self._board is not None:
            for name in row.keys() - {"epoch"}:
                self._board.add_scalar(name, row[name], int(row["epoch"]))

    def close(self) -> None:
        """Write `training.png` and close TensorBoard's file."""
        if self._board is not None:
            self._board.close()
        if self.rows:
            write_bytes(self.folder / FIGURE, metrics_figure(self.rows))


def metrics_figure(rows: list[dict[str, float]]) -> bytes:
    """Return a PNG of the loss, the spread of the representations and, if watermarked, the watermark, by epoch."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = [
        ("contrastive_loss", "loss of the method", None),
        ("spread", "spread of the representations (0: collapse)", 0.0),
    ]
    if "watermark_accuracy" in rows[0]:
        panels.append(("watermark_accuracy", "accuracy on rotated views (chance 0.5)", 0.5))
    if "keyed_r_squared" in rows[0]:
        panels.append(("keyed_r_squared", "keyed watermark: R squared of the content targets", 0.0))
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3), layout="constrained")
    for axis, (name, title, level) in zip(axes, panels, strict=True):
        axis.plot([r["epoch"] for r in rows], [r[name] for r in rows], color="black", marker="o", markersize=3)
        if level is not None:
            axis.axhline(level, color="0.6", linestyle="--", linewidth=1)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def model_card(stated: dict[str, Any], *, onnx: bool) -> str:
    """Return a README for users of the encoder. It says nothing about a watermark or its key.

    Args:
        stated: the content of `config.json`.
        onnx: whether `encoder.onnx` lies beside it.
    """
    training, data, cfg = stated["train"], stated["data"], stated["pretrained_cfg"]
    height, width = data["shape"][-2:]
    file = "encoder.onnx" if stated["architecture"] == "custom" else "encoder.safetensors"
    runtime = '\n\nOr use any ONNX runtime: `encoder.onnx`, input "images", output "representations".' if onnx else ""
    length = ""
    if "epochs" in training:
        length = (
            f"\n| training | {training['epochs']} epochs, batch size {training['batch_size']}, Adam, learning rate "
        )
        length += f"{training['lr']:g} |"
    mean, std = (", ".join(f"{x:g}" for x in cfg[name]) for name in ("mean", "std"))
    return f"""# {printable(stated["architecture"])}, {stated["num_features"]}-dimensional representations

A self-supervised image encoder. It maps images `(n, 3, {height}, {width})`, float32 in [0, 1], to representations
`(n, {stated["num_features"]})`. The encoder normalizes its input itself (mean {mean}; std {std}).

| | |
|---|---|
| method | {training["method"]} |
| images | {data["images"]:,} of {printable(str(data["name"]))}, without labels |{length}
| license, intended use, limits | to be filled in by the owner |

```python
from ownership import load_encoder       # pip install turnmark
encoder = load_encoder("{file}").encoder
```{runtime}
"""
