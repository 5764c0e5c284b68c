"""An encoder with what its train folder knows about it: configuration, projection head, predictor and key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import CUSTOM, Encoder
from ownership.encoders.images import EncoderLike
from ownership.encoders.projection import load_projection_head
from ownership.errors import OwnershipError, SuspectError, TrainingError
from ownership.io.files import read_bytes, read_json
from ownership.io.text import printable
from ownership.keyed.pool import KEY_FILE, PROBES_FILE, KeyMaterial
from ownership.suspects.sandbox.copying import INDEX
from ownership.suspects.suspect import load_encoder
from ownership.watermark import RotationPredictor, WatermarkKey
from watermark_training.encoder_files import ONNX, WEIGHTS
from watermark_training.unfinished import refuse_unfinished
from watermark_training.watermark import load_predictor

CONFIG, HEAD, PREDICTOR = "config.json", "projection_head.safetensors", "predictor.safetensors"
"""Files of a train folder, beside WEIGHTS and ONNX."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LoadedEncoder:
    """An encoder from a train folder or from a file.

    Attributes:
        encoder: the encoder.
        sha256: of its file.
        architecture: its name; None for an ONNX graph.
        config: content of `config.json`; empty for a single file.
        predictor: rotation predictor of an encoder with a rotation watermark.
        key: secret key of the rotation watermark.
        projection_head: of its training.
        material: key and probes of an encoder with a keyed watermark.
    """

    encoder: EncoderLike
    sha256: str
    architecture: str | None
    config: dict[str, Any]
    predictor: RotationPredictor | None = None
    key: WatermarkKey | None = None
    projection_head: nn.Module | None = None
    material: KeyMaterial | None = None

    @property
    def watermark(self) -> str | None:
        """Watermark task that its training configuration states; None if unknown."""
        task = self.config.get("train", {}).get("watermark")
        return None if task is None else str(task)

    def require_watermark(self) -> None:
        """Check that the watermark, if the training configuration states one, can be used.

        Raises:
            SuspectError: if the encoder was trained with a watermark and its key or predictor is missing.
        """
        if self.watermark == "keyed":
            self.require_material()
        elif self.watermark not in (None, "none") and self.predictor is None:
            raise SuspectError(
                f"the encoder was trained with a watermark ({self.watermark}), but {PREDICTOR}, which holds the key, "
                "is missing",
                f"restore {PREDICTOR} into the train folder; without it the claim would have no watermark test",
            )

    def require_material(self) -> KeyMaterial:
        """Return the key material of the keyed watermark.

        Raises:
            SuspectError: if it is missing.
        """
        if self.material is None:
            raise SuspectError(
                f"the encoder was trained with a keyed watermark, but its key ({KEY_FILE}, {PROBES_FILE}) is missing",
                "restore both files into the train folder; without them the claim would have no key test",
            )
        return self.material

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


def load_trained(path: Path | str, arch: str | None = None) -> LoadedEncoder:
    """Load a train folder, or an encoder's file.

    An encoder's file that lies in its train folder is loaded with what the folder knows about it: the configuration,
    the projection head, and the watermark's key and predictor.

    Args:
        path: train folder, model's folder as hubs have it, or file.
        arch: name of the architecture, where the file does not state it.

    Raises:
        SuspectError: if it is neither, or the folder is unfinished.
        OwnershipError: if a file of the folder is damaged, or one of the two files of a key is missing.
    """
    path = Path(path)
    in_folder = path.name in (WEIGHTS, ONNX) and (path.parent / CONFIG).is_file()
    if not in_folder and (not path.is_dir() or _from_a_hub(path)):
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
    has_key = any((folder / name).is_file() for name in (KEY_FILE, PROBES_FILE))
    return LoadedEncoder(
        encoder=file.encoder,
        sha256=file.sha256,
        architecture=file.architecture,
        config=config,
        predictor=predictor,
        key=key,
        projection_head=_load_head(folder / HEAD),
        material=KeyMaterial.load(folder) if has_key else None,
    )


def _from_a_hub(folder: Path) -> bool:
    """Return whether a folder is a model's as hubs have it: its weights have another name than those of training."""
    names = {x.name for x in folder.iterdir()}
    return not names & {WEIGHTS, ONNX} and bool(names & {"model.safetensors", "pytorch_model.bin", INDEX})


def _load_head(path: Path) -> nn.Module | None:
    if not path.is_file():
        return None
    data = read_bytes(path, OwnershipError, "projection head")
    try:
        return load_projection_head(load(data))
    except (SafetensorError, KeyError, RuntimeError, ValueError) as e:
        raise OwnershipError(f"{printable(path, 300)} is damaged", "restore it, train again, or delete it") from e
