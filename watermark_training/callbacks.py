"""What people look at while an encoder trains, and afterwards: rows, TensorBoard, a picture, a model card."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from ownership.io.files import write_bytes
from ownership.io.text import printable

METRICS, PICTURE, CARD = "metrics.jsonl", "training.png", "README.md"


class Watch:
    """Called with every epoch's row: keeps `metrics.jsonl` whole, and feeds TensorBoard where that is installed.

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
        """Adds a row."""
        self.rows.append(row)
        write_bytes(self.folder / METRICS, "".join(json.dumps(r) + "\n" for r in self.rows).encode())
        if self._board is not None:
            for name in row.keys() - {"epoch"}:
                self._board.add_scalar(name, row[name], int(row["epoch"]))

    def close(self) -> None:
        """Draws the picture and lets TensorBoard go."""
        if self._board is not None:
            self._board.close()
        if self.rows:
            write_bytes(self.folder / PICTURE, picture(self.rows))


def picture(rows: list[dict[str, float]]) -> bytes:
    """Returns a PNG of the loss, the spread of the answers and, for a marked encoder, the mark, by epoch."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = [("contrastive_loss", "the method's loss", None), ("spread", "spread of the answers (0: collapse)", 0.0)]
    if "watermark_accuracy" in rows[0]:
        panels.append(("watermark_accuracy", "rotated views told apart (chance .5)", 0.5))
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3), layout="constrained")
    for axis, (name, title, level) in zip(axes, panels, strict=True):
        axis.plot([r["epoch"] for r in rows], [r[name] for r in rows], color="black", marker="o", markersize=3)
        if level is not None:
            axis.axhline(level, color="0.6", linestyle="--", linewidth=1)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("passes over the images")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def model_card(stated: dict[str, Any]) -> str:
    """Returns a README for whoever gets the encoder. It says nothing of a mark, let alone of its key.

    Args:
        stated: the content of config.json.
    """
    training, data, cfg = stated["train"], stated["data"], stated["pretrained_cfg"]
    height, width = data["shape"][-2:]
    load = "encoder = load_encoder('encoder.safetensors').encoder"
    if stated["architecture"] == "custom":
        load = "encoder = load_encoder('encoder.onnx').encoder"
    numbers = ", ".join(f"{x:g}" for x in cfg["mean"]), ", ".join(f"{x:g}" for x in cfg["std"])
    return f"""# {printable(stated["architecture"])}, {stated["num_features"]} numbers an image

A self-supervised image encoder. It maps images `(n, 3, {height}, {width})`, float32 in [0, 1], to representations
`(n, {stated["num_features"]})`. Normalisation (mean {numbers[0]}; std {numbers[1]}) is inside.

| | |
|---|---|
| method | {training["method"]} |
| images | {data["images"]:,} of {printable(str(data["name"]))}, without labels |
| training | {training["epochs"]} passes, batches of {training["batch_size"]}, Adam, learning rate {training["lr"]:g} |
| licence, intended use, limits | to be filled in by the owner |

```python
from ownership import load_encoder       # pip install turnmark
{load}           # or any ONNX runtime: encoder.onnx, input "images", output "representations"
```
"""
