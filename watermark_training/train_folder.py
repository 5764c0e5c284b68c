"""Train folders: what `turnmark train` and `turnmark embed` write (`loaded_encoder.py` loads it again).

```
victim/
├── encoder.safetensors          weights, with the architecture's name in the header
├── encoder.onnx                 the same network, any batch size; only on request
├── projection_head.safetensors
├── key.json                     keyed watermark only; SECRET: the key; mode 0600
├── probes.safetensors           keyed watermark only; the probes that the key draws; mode 0600
├── predictor.safetensors        rotation watermark only; SECRET: its header holds the key; mode 0600
├── config.json                  architecture (as timm writes it), training configuration, data; nothing about the key
├── README.md                    a model card; nothing about the watermark
├── training.png                 loss, spread and how well the watermark is read, by epoch
├── metrics.jsonl                one line an epoch
└── tensorboard/                 the same, where TensorBoard is installed
```

While training runs, the folder holds `checkpoint.pt` and `unfinished.json` instead of `config.json`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ownership.encoders.architectures import CUSTOM, Encoder
from ownership.encoders.images import images_sha256
from ownership.errors import TrainingError
from ownership.io.files import alone_in, finished, write_bytes, write_json
from ownership.io.text import printable
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.test import KeyTestResult
from ownership.watermark import WatermarkKey
from watermark_training.callbacks import CARD, Callbacks, MetricsLog, model_card
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.distributed import from_first_process, rank
from watermark_training.encoder_files import ONNX, onnx_bytes, save_encoder
from watermark_training.key_material import refuse_pool_images
from watermark_training.loaded_encoder import CONFIG, HEAD, PREDICTOR, LoadedEncoder, load_trained, trainable
from watermark_training.training import Trained, train
from watermark_training.unfinished import unfinished
from watermark_training.watermark import save_predictor


def describe_data(name: str, images: Tensor) -> dict[str, Any]:
    """Return what `config.json` records about training images."""
    return {"name": name, "images": len(images), "shape": list(images.shape[1:]), "sha256": images_sha256(images)}


def save_trained(
    trained: Trained, folder: Path, data: dict[str, Any], base_checkpoint: str | None = None, *, onnx: bool = False
) -> None:
    """Write a train folder; `config.json` is written last, so a folder that has one is complete.

    Args:
        trained: result of `train`.
        folder: where to write.
        data: result of `describe_data`.
        base_checkpoint: SHA-256 of the encoder's file that training started from.
        onnx: whether `encoder.onnx` is written too. A custom architecture can be loaded from it only, so it always is.
    """
    if trained.projection_head is not None:
        write_bytes(folder / HEAD, save(trained.projection_head.state_dict()))
    if trained.predictor is not None and trained.key is not None:
        save_predictor(trained.predictor, trained.key, folder / PREDICTOR)
    if trained.material is not None:
        trained.material.save(folder)
    write_folder(folder, trained.encoder, trained.config.to_dict(), data, base_checkpoint, onnx=onnx)


def write_folder(
    folder: Path,
    encoder: Encoder,
    training: dict[str, Any],
    data: dict[str, Any],
    base_checkpoint: str | None = None,
    *,
    onnx: bool = False,
) -> None:
    """Write the files of a train folder that hold no secret.

    Args:
        folder: where to write.
        encoder: in eval mode, on the CPU.
        training: what `config.json` states about the training, with the architecture as "arch".
        data: result of `describe_data`.
        base_checkpoint: SHA-256 of the encoder's file that training started from.
        onnx: whether `encoder.onnx` is written too; always for a custom architecture.
    """
    onnx = onnx or training["arch"] == CUSTOM
    height, width = data["shape"][-2:]
    save_encoder(encoder, training["arch"], folder, onnx_for=(height, width) if onnx else None)
    stated = {
        "architecture": training["arch"],
        "num_classes": 0,
        "num_features": encoder.dim,
        "pretrained_cfg": {
            "input_size": [3, height, width],
            "mean": encoder.mean.flatten().tolist(),
            "std": encoder.std.flatten().tolist(),
        },
        "train": training,
        "data": data,
    }
    write_bytes(folder / CARD, model_card(stated, onnx=onnx).encode())
    write_json(folder / CONFIG, stated if base_checkpoint is None else {**stated, "base_checkpoint": base_checkpoint})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainFolder:
    """A finished train folder.

    Attributes:
        path: the folder.
        created: whether this call trained it; False if it was finished already.
        key_test: the key test on an encoder that this call trained with a keyed watermark.
    """

    path: Path
    created: bool
    key_test: KeyTestResult | None = None

    def load(self) -> LoadedEncoder:
        """Return its encoder."""
        return load_trained(self.path)


def check_same_key(folder: Path, material: KeyMaterial | None) -> None:
    """Raise TrainingError if a finished folder holds another key than the given one."""
    if material is not None and load_trained(folder).require_material().key != material.key:
        raise TrainingError(
            f"{printable(folder, 300)} holds an encoder that was trained with another key", "choose another --out"
        )


def train_to(
    folder: Path | str,
    data: Data,
    config: TrainConfig,
    *,
    key: WatermarkKey | None = None,
    material: KeyMaterial | None = None,
    start: Encoder | LoadedEncoder | None = None,
    onnx: bool = False,
    device: torch.device | str = "cpu",
    callbacks: Callbacks = Callbacks(),  # noqa: B008  (frozen)
) -> TrainFolder:
    """Train into a folder, unless it holds the result of the same configuration and data already.

    An interrupted run continues from its checkpoint. Of several processes the first one writes.

    Args:
        folder: where to write.
        data: training images.
        config: what to train.
        key: secret key of a rotation watermark; a fresh one if not given.
        material: key of a keyed watermark; a new, unanchored one if not given, from images that are held out
            (`train`).
        start: encoder that training starts from. A `LoadedEncoder` is recorded in `config.json` by its SHA-256, and an
            embedded encoder keeps its projection head.
        onnx: whether `encoder.onnx` is written too.
        device: where to compute.
        callbacks: progress, advice, metrics.

    Raises:
        TrainingError: if the folder holds something else or another process writes into it, or the images are those
            of the key's pool; as in `train`.
    """
    folder = Path(folder)
    if material is not None:
        refuse_pool_images(data.images, material)
    described = describe_data(data.name, data.images)
    base = start if isinstance(start, LoadedEncoder) else None
    work = {"train": config.to_dict(), "data": described} | ({} if base is None else {"base_checkpoint": base.sha256})
    if from_first_process(finished(folder, CONFIG, work)):
        check_same_key(folder, material)
        if onnx and rank() == 0 and not (folder / ONNX).is_file():
            encoder, _ = trainable(load_trained(folder))
            write_bytes(folder / ONNX, onnx_bytes(encoder, (described["shape"][-2], described["shape"][-1])))
        return TrainFolder(path=folder, created=False)
    if from_first_process((folder / CONFIG).exists()):
        raise TrainingError(
            f"{printable(folder, 300)} holds an encoder of another configuration or other data", "choose another --out"
        )
    checkpoint = folder / "checkpoint.pt"
    writes = rank() == 0
    with ExitStack() as stack:
        if writes:
            stack.enter_context(alone_in(folder, TrainingError))
            stack.enter_context(unfinished(folder, checkpoint))
        log = MetricsLog(folder) if writes else None

        def end_epoch(row: dict[str, float]) -> None:
            if log is not None:
                log(row)
            callbacks.epoch(row)

        trained = train(
            data.images,
            config,
            key=key,
            material=material,
            start=trainable(start)[0] if isinstance(start, LoadedEncoder) else start,
            device=device,
            checkpoint=checkpoint,
            callbacks=replace(callbacks, epoch=end_epoch) if writes else Callbacks(progress=callbacks.progress),
        )
        if log is not None:
            if trained.projection_head is None and base is not None:
                trained = replace(trained, projection_head=base.projection_head)
            log.close()
            save_trained(trained, folder, described, None if base is None else base.sha256, onnx=onnx)
            checkpoint.unlink(missing_ok=True)
    return TrainFolder(path=folder, created=True, key_test=trained.key_test)
