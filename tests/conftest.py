"""Small real pieces for the tests: random-convolution encoders that stand in for trained ones, and one good claim."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import pytest
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509 import Certificate
    from tsa import Authority

from attacks_for_eval.demo import INDEPENDENTS, JobConfig, Row, demo_config, run_job
from ownership.architectures import ARCHITECTURES, Encoder
from ownership.build import build_claim
from ownership.claim import Claim, Member
from ownership.errors import OwnershipError
from ownership.files import read_json, sha256
from ownership.images import as_input, three_channels
from ownership.plan import Plan
from ownership.watermark import RotationPredictor, WatermarkKey
from watermark_training.artefacts import weights_bytes
from watermark_training.config import TrainConfig
from watermark_training.data import Data, load_data
from watermark_training.train import Trained, train

SIDE = 16


@cache
def encoder(seed: int) -> Encoder:
    """An untrained tiny encoder, its normalisation settled on digits; different seeds are strangers to each other."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ARCHITECTURES["tiny"]()
    images = three_channels(as_input(load_data("digits[:64]").images))
    with torch.no_grad():
        for _ in range(30):
            made(images)
    return made.eval()


class Noisy(nn.Module):
    """An encoder near another one: its answers plus a fixed random linear disturbance of the image."""

    def __init__(self, base: nn.Module, seed: int, amount: float) -> None:
        super().__init__()
        self.base, self.amount = base, amount
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("mix", torch.randn(3 * SIDE * SIDE, 64, generator=generator) / (3 * SIDE * SIDE) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        own: Tensor = self.base(images)
        noise = (images.flatten(1) - 0.5) @ self.mix
        return own + self.amount * noise


@pytest.fixture(scope="session")
def digits() -> Data:
    return load_data("digits")


@pytest.fixture(scope="session")
def key() -> WatermarkKey:
    return WatermarkKey(cuts=(0.91357, 0.91357 + torch.pi), margin=0.3, predictor_seed=3)


def member(name: str, kind: str, of: Encoder | None = None, *, private: bool | None = False) -> Member:
    digest = sha256(weights_bytes(of, "tiny")) if of is not None else "0" * 64
    return Member(name=name, kind=kind, sha256=digest, architecture="tiny", trained_on_private=private)


@pytest.fixture(scope="session")
def victim() -> Encoder:
    return encoder(1)


@pytest.fixture(scope="session")
def trained(digits: Data, key: WatermarkKey) -> Trained:
    """A really trained small watermarked encoder."""
    config = TrainConfig(arch="tiny", epochs=25, batch_size=64, lr=2e-3, temperature=0.2, min_crop=0.3, flip=False)
    return train(digits.images[:256], config, key=key)


@pytest.fixture(scope="session")
def claim(digits: Data, victim: Encoder, key: WatermarkKey) -> Claim:
    """A claim over untrained encoders: victim, 5 plain, 5 marked, one reference near the victim."""
    panel = [(member(f"m{i}", "plain" if i < 5 else "marked", e := encoder(10 + i)), e) for i in range(10)]
    # the digits are ordered by writer: unshuffled, private and public ones can be told apart without any encoder
    images = digits.images[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    return build_claim(
        (member("victim", "victim", victim), victim),
        images[:300],
        images[300:900],
        panel,
        plan=Plan(n_public=300, n_watermark=100, n_private=100),
        key=key,
        predictor=RotationPredictor(64, key.predictor_seed).eval(),
        projection_head=nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)).eval(),
        references=[(member("reference_mse", "reference"), Noisy(victim, 5, 0.002))],
        view=lambda x, g: (x + 0.1 * torch.randn(x.shape, generator=g)).clamp(0, 1),
    )


@pytest.fixture(scope="session")
def claim_folder(claim: Claim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claims") / "claim"
    claim.save(folder)
    return folder


@dataclass(frozen=True)
class Sealed:
    """A sealed claim, stamped by two authorities, and what its owner and its verifier hold. Never changed."""

    folder: Path
    key: Ed25519PrivateKey
    public: Path
    first: Authority
    second: Authority
    roots: tuple[Certificate, ...]
    later: datetime
    disclosure: bytes

    @property
    def content(self) -> dict[str, Any]:
        return read_json(self.folder / "claim.json", OwnershipError, "claim")


@pytest.fixture(scope="session")
def sealed(claim_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    from tsa import make_authority

    from ownership.disclosure import disclose
    from ownership.sealing import attach, seal_claim, write_request
    from ownership.signing import load_signing_key, make_signing_key
    from ownership.timestamps import load_roots

    place = tmp_path_factory.mktemp("sealed")
    folder = shutil.copytree(claim_folder, place / "claim")
    make_signing_key(place / "owner.key")
    key = load_signing_key(place / "owner.key", str)
    seal_claim(folder, key)
    write_request(folder, place / "claim.tsq")
    authorities = [make_authority(place / n, f"{n.title()} authority") for n in ("first", "second")]
    for authority in authorities:
        attach(folder, authority.reply(place / "claim.tsq", place / "claim.tsr").read_bytes())
    return Sealed(
        folder=folder,
        key=key,
        public=place / "owner.key.pub",
        first=authorities[0],
        second=authorities[1],
        roots=tuple(r for a in authorities for r in load_roots(a.roots)),
        later=datetime.now(UTC) + timedelta(days=1),
        disclosure=disclose(folder, ["key.json", "private/7"], data=True),
    )


@dataclass(frozen=True)
class Job:
    """The main job at a size for tests: a folder as `turnmark demo` leaves it, and its rows."""

    folder: Path
    config: JobConfig
    rows: list[Row]


@pytest.fixture(scope="session")
def job(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A real run, shortened: fewer epochs, two losses, two strangers."""
    folder = tmp_path_factory.mktemp("job") / "Prüfung 1"
    config = replace(
        demo_config(0),
        epochs=12,
        stranger_epochs=8,
        steal_epochs=40,
        reference_epochs=40,
        losses=("mse", "infonce"),
        independents=tuple(s for s in INDEPENDENTS if s.name in ("foreign_key", "half_turn")),
    )
    return Job(folder, config, run_job(digits, folder, config))
