"""Encoders as files: a train folder, weights as safetensors, and the ONNX form of an encoder.

```
victim/
├── encoder.safetensors          weights, with the architecture's name in the header
├── encoder.onnx                 the same network; any batch size
├── projection_head.safetensors
├── predictor.safetensors        marked encoders only; SECRET: the key is in its header; mode 0600
├── config.json                  architecture (as timm writes it), training configuration, data; nothing of the key
├── README.md                    a model card; nothing of the mark
├── training.png                 loss, spread, mark by epoch
├── metrics.jsonl                one row an epoch
└── tensorboard/                 the same, where TensorBoard is installed
```
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import CUSTOM, Encoder
from ownership.encoders.images import EncoderLike, images_sha256
from ownership.encoders.projection import load_projection_head
from ownership.errors import OwnershipError, SuspectError, TrainingError
from ownership.io.files import alone_in, finished, read_bytes, read_json, write_bytes, write_json
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.suspects.suspect import load_encoder
from ownership.watermark import RotationPredictor, WatermarkKey, stored_predictor
from watermark_training.callbacks import CARD, Watch, model_card
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.distributed import of_first, rank
from watermark_training.training import Trained, train
from watermark_training.watermark import save_predictor

CONFIG, WEIGHTS, ONNX = "config.json", "encoder.safetensors", "encoder.onnx"


def weights_bytes(encoder: Encoder, arch: str) -> bytes:
    """Returns an encoder's weights as safetensors with the architecture's name in the header."""
    return save({k: v.contiguous() for k, v in encoder.state_dict().items()}, metadata={"architecture": arch})


def onnx_bytes(encoder: Encoder, image_shape: tuple[int, int]) -> bytes:
    """Returns an encoder as ONNX: input `images` `(n, 3, h, w)` in `[0, 1]`, output `representations` `(n, d)`.

    Args:
        encoder: in eval mode, on the CPU.
        image_shape: (h, w) it is exported for; the batch size stays free.

    Raises:
        TrainingError: if the exporter cannot.
    """
    example = torch.zeros(2, 3, *image_shape)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():  # torch.onnx warns about its own internals (pytree, copyreg, axis names)
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                encoder.eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["representations"],
                dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            )
    except Exception as e:  # the exporter raises errors of many modules
        raise TrainingError(
            f"the encoder cannot be exported to ONNX ({printable(e)})", "use the safetensors form"
        ) from e
    finally:
        logger.setLevel(level)
    if program is None:
        raise TrainingError("the encoder cannot be exported to ONNX", "use the safetensors form")
    return bytes(program.model_proto.SerializeToString())


def describe_data(name: str, images: Tensor) -> dict[str, Any]:
    """Returns what config.json records about training images."""
    return {"name": name, "images": len(images), "shape": list(images.shape[1:]), "sha256": images_sha256(images)}


def save_encoder(encoder: Encoder, arch: str, folder: Path, image_shape: tuple[int, int]) -> None:
    """Writes an encoder's two forms into a folder."""
    write_bytes(folder / WEIGHTS, weights_bytes(encoder, arch))
    write_bytes(folder / ONNX, onnx_bytes(encoder, image_shape))


def save_trained(trained: Trained, folder: Path, data: dict[str, Any], base_checkpoint: str | None = None) -> None:
    """Writes a train folder; `config.json` comes last, so a folder that has one is complete.

    Args:
        trained: what `train` returned.
        folder: where to.
        data: from `describe_data`.
        base_checkpoint: SHA-256 of the encoder's file that the training went on from.
    """
    arch = trained.config.arch
    save_encoder(trained.encoder, arch, folder, (data["shape"][-2], data["shape"][-1]))
    if trained.projection_head is not None:
        write_bytes(folder / "projection_head.safetensors", save(trained.projection_head.state_dict()))
    if trained.predictor is not None and trained.key is not None:
        save_predictor(trained.predictor, trained.key, folder / "predictor.safetensors")
    stated = {
        "architecture": arch,
        "num_classes": 0,
        "num_features": trained.encoder.dim,
        "pretrained_cfg": {
            "input_size": [3, *data["shape"][-2:]],
            "mean": trained.encoder.mean.flatten().tolist(),
            "std": trained.encoder.std.flatten().tolist(),
        },
        "train": trained.config.to_dict(),
        "data": data,
    }
    write_bytes(folder / CARD, model_card(stated).encode())
    write_json(folder / CONFIG, stated if base_checkpoint is None else {**stated, "base_checkpoint": base_checkpoint})


def train_to(
    folder: Path,
    data: Data,
    config: TrainConfig,
    *,
    key: WatermarkKey | None = None,
    start: Encoder | None = None,
    base_checkpoint: str | None = None,
    head: nn.Module | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    warn: Callable[[str], None] = lambda _: None,
) -> bool:
    """Trains into a folder, unless it holds the result of the same configuration and data already.

    An interrupted run goes on from where its state was last kept. Of several processes the first one writes.

    Returns:
        Whether anything had to be trained.
    """
    described = describe_data(data.name, data.images)
    work = {"train": config.to_dict(), "data": described} | (
        {} if base_checkpoint is None else {"base_checkpoint": base_checkpoint}
    )
    if of_first(finished(folder, CONFIG, work)):
        return False
    if of_first((folder / CONFIG).exists()):
        raise TrainingError(
            f"{printable(folder, 300)} holds an encoder of another configuration or other data", "choose another --out"
        )
    checkpoint = folder / "checkpoint.pt"
    writes = rank() == 0
    with alone_in(folder, TrainingError) if writes else nullcontext():
        watch = Watch(folder) if writes else None
        trained = train(
            data.images,
            config,
            key=key,
            start=start,
            device=device,
            checkpoint=checkpoint,
            progress=progress,
            warn=warn if writes else lambda _: None,
            watch=watch or (lambda _: None),
        )
        if trained.projection_head is None:
            trained = replace(trained, projection_head=head)
        if watch is not None:
            watch.close()
            save_trained(trained, folder, described, base_checkpoint)
            checkpoint.unlink(missing_ok=True)
    return True


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Loaded:
    """An encoder from a train folder or a file, with whatever the folder knows about it."""

    encoder: EncoderLike
    sha256: str
    architecture: str | None
    config: dict[str, Any]  # config.json; empty for a bare file
    predictor: RotationPredictor | None = None
    key: WatermarkKey | None = None
    projection_head: nn.Module | None = None

    def member(self, name: str, kind: str, private_sha256: str | None = None) -> EncoderRecord:
        """Returns what a claim records about this encoder.

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
            watermark=self.config.get("train", {}).get("watermark"),
            data=data.get("name"),
            trained_on_private=None if "sha256" not in data else data["sha256"] == private_sha256,
            teacher=self.config.get("victim_sha256", ""),
        )


def trainable(model: Loaded) -> tuple[Encoder, str]:
    """Returns the encoder and its architecture's name, for training to go on from.

    Raises:
        TrainingError: if they are no weights of a known architecture.
    """
    if not isinstance(model.encoder, Encoder) or model.architecture is None:
        raise TrainingError(
            "training can go on from weights of a known architecture only", "give safetensors (and --arch), not ONNX"
        )
    return model.encoder, model.architecture


def load_trained(path: Path, arch: str | None = None) -> Loaded:
    """Loads a train folder, or a single encoder file.

    Raises:
        SuspectError: if it is neither.
    """
    if not path.is_dir():
        suspect = load_encoder(path, arch)
        return Loaded(encoder=suspect.encoder, sha256=suspect.sha256, architecture=suspect.architecture, config={})
    if not (path / CONFIG).is_file():
        raise SuspectError(
            f"{printable(path, 300)} is no train folder: it has no {CONFIG}",
            "give a folder of turnmark train, or a file",
        )
    config = read_json(path / CONFIG, SuspectError, "train folder")
    if not all(isinstance(config.get(k, {}), dict) for k in ("train", "data")):
        raise SuspectError(f"{printable(path / CONFIG, 300)} is malformed", "train again, or give the encoder's file")
    custom = arch is None and config.get("architecture") == CUSTOM  # a module that no name stands for
    suspect = load_encoder(path / (ONNX if custom else WEIGHTS), arch)
    predictor, key = _load_predictor(path / "predictor.safetensors")
    head = None
    if (path / "projection_head.safetensors").is_file():
        data = read_bytes(path / "projection_head.safetensors", OwnershipError, "projection head")
        try:
            head = load_projection_head(load(data))
        except (SafetensorError, KeyError, RuntimeError, ValueError) as e:
            raise OwnershipError("projection_head.safetensors is damaged", "train again, or delete it") from e
    return Loaded(
        encoder=suspect.encoder,
        sha256=suspect.sha256,
        architecture=suspect.architecture,
        config=config,
        predictor=predictor,
        key=key,
        projection_head=head,
    )


def _load_predictor(path: Path) -> tuple[RotationPredictor | None, WatermarkKey | None]:
    if not path.is_file():
        return None, None
    try:
        with safe_open(path, framework="pt") as f:
            header = f.metadata() or {}
            # as older files have it: two entries, or one where single views were read
            stated = json.loads(header.get("predictor", "{}")) or {**header, "key": json.loads(header["key"])}
            key = WatermarkKey.from_dict(stated["key"])
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
        dim = stated.get("dim", tensors["layers.0.weight"].shape[1])
        predictor = stored_predictor(tensors, int(dim))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, IndexError, OSError) as e:
        raise OwnershipError("predictor.safetensors is damaged or not the owner's", "get the original") from e
    return predictor, key
