"""Train folders: what `turnmark train` and `turnmark embed` write, and how it is loaded again.

```
victim/
├── encoder.safetensors          weights, with the architecture's name in the header
├── encoder.onnx                 the same network, any batch size; only on request
├── projection_head.safetensors
├── predictor.safetensors        watermarked encoders only; SECRET: its header holds the key; mode 0600
├── config.json                  architecture (as timm writes it), training configuration, data; nothing about the key
├── README.md                    a model card; nothing about the watermark
├── training.png                 loss, spread and watermark accuracy by epoch
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
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import CUSTOM, Encoder
from ownership.encoders.images import EncoderLike, images_sha256
from ownership.encoders.projection import load_projection_head
from ownership.errors import OwnershipError, SuspectError, TrainingError
from ownership.io.files import alone_in, finished, read_bytes, read_json, write_bytes, write_json
from ownership.io.text import printable
from ownership.suspects.suspect import load_encoder
from ownership.watermark import RotationPredictor, WatermarkKey
from watermark_training.callbacks import CARD, Callbacks, MetricsLog, model_card
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.distributed import from_first_process, rank
from watermark_training.encoder_files import ONNX, WEIGHTS, onnx_bytes, save_encoder
from watermark_training.training import Trained, train
from watermark_training.unfinished import refuse_unfinished, unfinished
from watermark_training.watermark import load_predictor, save_predictor

CONFIG, HEAD, PREDICTOR = "config.json", "projection_head.safetensors", "predictor.safetensors"


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
    arch = trained.config.arch
    onnx = onnx or arch == CUSTOM
    height, width = data["shape"][-2:]
    save_encoder(trained.encoder, arch, folder, onnx_for=(height, width) if onnx else None)
    if trained.projection_head is not None:
        write_bytes(folder / HEAD, save(trained.projection_head.state_dict()))
    if trained.predictor is not None and trained.key is not None:
        save_predictor(trained.predictor, trained.key, folder / PREDICTOR)
    stated = {
        "architecture": arch,
        "num_classes": 0,
        "num_features": trained.encoder.dim,
        "pretrained_cfg": {
            "input_size": [3, height, width],
            "mean": trained.encoder.mean.flatten().tolist(),
            "std": trained.encoder.std.flatten().tolist(),
        },
        "train": trained.config.to_dict(),
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
    """

    path: Path
    created: bool

    def load(self) -> LoadedEncoder:
        """Return its encoder."""
        return load_trained(self.path)


def train_to(
    folder: Path,
    data: Data,
    config: TrainConfig,
    *,
    key: WatermarkKey | None = None,
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
        key: secret key; a fresh one if not given.
        start: encoder that training starts from. A `LoadedEncoder` is recorded in `config.json` by its SHA-256, and an
            embedded encoder keeps its projection head.
        onnx: whether `encoder.onnx` is written too.
        device: where to compute.
        callbacks: progress, advice, metrics.

    Raises:
        TrainingError: if the folder holds something else or another process writes into it; as in `train`.
    """
    described = describe_data(data.name, data.images)
    base = start if isinstance(start, LoadedEncoder) else None
    work = {"train": config.to_dict(), "data": described} | ({} if base is None else {"base_checkpoint": base.sha256})
    if from_first_process(finished(folder, CONFIG, work)):
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
    return TrainFolder(path=folder, created=True)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LoadedEncoder:
    """An encoder from a train folder or from a file.

    Attributes:
        encoder: the encoder.
        sha256: of its file.
        architecture: its name; None for an ONNX graph.
        config: content of `config.json`; empty for a single file.
        predictor: rotation predictor of a watermarked encoder.
        key: secret key of the watermark.
        projection_head: of its training.
    """

    encoder: EncoderLike
    sha256: str
    architecture: str | None
    config: dict[str, Any]
    predictor: RotationPredictor | None = None
    key: WatermarkKey | None = None
    projection_head: nn.Module | None = None

    @property
    def watermark(self) -> str | None:
        """Watermark task that its training configuration states; None if unknown."""
        task = self.config.get("train", {}).get("watermark")
        return None if task is None else str(task)

    def require_watermark(self) -> None:
        """Check that the watermark, if the training configuration states one, can be used.

        Raises:
            SuspectError: if the encoder was trained with a watermark and its predictor is missing.
        """
        if self.watermark not in (None, "none") and self.predictor is None:
            raise SuspectError(
                f"the encoder was trained with a watermark ({self.watermark}), but {PREDICTOR}, which holds the key, "
                "is missing",
                f"restore {PREDICTOR} into the train folder; without it the claim would have no watermark test",
            )

    def member(self, name: str, kind: str, private_sha256: str | None = None) -> EncoderRecord:
        """Return what a claim records about this encoder.

        Args:
            name: unique in the claim.
            kind: victim, reference or a stratum.
            private_sha256: digest of the private images, to tell whether it was trained on them.
        """
        data = self.config.get("data", {})
        return EncoderRecord(
            name=name,
            kind=kind,
            sha256=self.sha256,
            architecture=self.architecture,
            watermark=self.watermark,
            data=data.get("name"),
            trained_on_private=None if "sha256" not in data else data["sha256"] == private_sha256,
            teacher=self.config.get("victim_sha256"),
        )


def trainable(model: LoadedEncoder) -> tuple[Encoder, str]:
    """Return the encoder and the name of its architecture, for training to start from.

    Raises:
        TrainingError: if the model is not weights of a known architecture.
    """
    if not isinstance(model.encoder, Encoder) or model.architecture is None:
        raise TrainingError(
            "training can start from weights of a known architecture only", "give safetensors (and --arch), not ONNX"
        )
    return model.encoder, model.architecture


def load_trained(path: Path, arch: str | None = None) -> LoadedEncoder:
    """Load a train folder, or an encoder's file.

    An encoder's file that lies in its train folder is loaded with what the folder knows about it: the configuration,
    the projection head, the predictor and its key.

    Args:
        path: train folder, or file.
        arch: name of the architecture, where the file does not state it.

    Raises:
        SuspectError: if it is neither, or the folder is unfinished.
        OwnershipError: if a file of the folder is damaged.
    """
    in_folder = path.name in (WEIGHTS, ONNX) and (path.parent / CONFIG).is_file()
    if not path.is_dir() and not in_folder:
        suspect = load_encoder(path, arch)
        return LoadedEncoder(
            encoder=suspect.encoder, sha256=suspect.sha256, architecture=suspect.architecture, config={}
        )
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file():
        refuse_unfinished(folder, SuspectError)
        raise SuspectError(
            f"{printable(folder, 300)} is not a train folder: it has no {CONFIG}",
            "give a folder of turnmark train, or an encoder's file",
        )
    config = read_json(folder / CONFIG, SuspectError, "train folder")
    if not all(isinstance(config.get(k, {}), dict) for k in ("train", "data", "extraction")):
        raise SuspectError(f"{printable(folder / CONFIG, 300)} is malformed", "train again, or give the encoder's file")
    if path.is_dir():
        custom = arch is None and config.get("architecture") == CUSTOM  # no name stands for its module
        path = folder / (ONNX if custom else WEIGHTS)
    file = load_encoder(path, arch)
    predictor, key = load_predictor(folder / PREDICTOR)
    return LoadedEncoder(
        encoder=file.encoder,
        sha256=file.sha256,
        architecture=file.architecture,
        config=config,
        predictor=predictor,
        key=key,
        projection_head=_load_head(folder / HEAD),
    )


def _load_head(path: Path) -> nn.Module | None:
    if not path.is_file():
        return None
    data = read_bytes(path, OwnershipError, "projection head")
    try:
        return load_projection_head(load(data))
    except (SafetensorError, KeyError, RuntimeError, ValueError) as e:
        raise OwnershipError(f"{printable(path, 300)} is damaged", "restore it, train again, or delete it") from e
