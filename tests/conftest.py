"""Small real pieces for the tests: random-convolution encoders that stand in for trained ones, and one good claim."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
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
    from support.tsa import Authority

from attacks_for_eval.claims.panel import panel_specs
from attacks_for_eval.demo import INDEPENDENTS, JobConfig, Row, demo_config, run_job
from cli.main import main
from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import ARCHITECTURES, Encoder
from ownership.encoders.images import as_input, three_channels
from ownership.errors import OwnershipError
from ownership.io.canonical import sha256
from ownership.io.files import read_json
from ownership.plan import Plan
from ownership.watermark import RotationPredictor, WatermarkKey
from watermark_training.config import TrainConfig
from watermark_training.data import Data, load_data
from watermark_training.train_folder import weights_bytes
from watermark_training.training import Trained, train

SIDE = 16


@cache
def encoder(seed: int) -> Encoder:
    """An untrained tiny encoder, its normalisation settled on digits; different seeds are independent encoders to each other."""
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
    return WatermarkKey(sector_boundaries=(0.91357, 0.91357 + torch.pi), margin=0.3, predictor_seed=3)


def member(name: str, kind: str, of: Encoder | None = None, *, private: bool | None = False) -> EncoderRecord:
    digest = sha256(weights_bytes(of, "tiny")) if of is not None else "0" * 64
    return EncoderRecord(name=name, kind=kind, sha256=digest, architecture="tiny", trained_on_private=private)


@pytest.fixture(scope="session")
def victim() -> Encoder:
    return encoder(1)


@pytest.fixture(scope="session")
def trained(digits: Data, key: WatermarkKey) -> Trained:
    """A really trained small watermarked encoder."""
    config = TrainConfig(arch="tiny", epochs=25, batch_size=64, lr=2e-3, temperature=0.2, min_crop=0.3, flip=False)
    config = replace(config, watermark_fraction=0.5)  # few images, few passes
    return train(digits.images[:256], config, key=key)


@pytest.fixture(scope="session")
def claim(digits: Data, victim: Encoder, key: WatermarkKey) -> Claim:
    """A claim over untrained encoders: victim, 5 plain, 5 marked, one reference near the victim."""
    panel = [(member(f"m{i}", "plain" if i < 5 else "watermarked", e := encoder(10 + i)), e) for i in range(10)]
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
    from support.tsa import make_authority

    from ownership.attestation.keys import load_signing_key, make_signing_key
    from ownership.attestation.timestamps import load_roots
    from ownership.sealing.create import attach, seal_claim, write_request
    from ownership.sealing.disclosure import disclose

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
    """A real run, shortened: fewer epochs, two losses, two independent encoders.

    Eight members a stratum, not the demo's five: independent encoders trained this briefly scatter, and whether a reference then
    comes beyond a threshold of four degrees of freedom depended on the kind of CPU.
    """
    folder = tmp_path_factory.mktemp("job") / "Prüfung 1"
    config = replace(
        demo_config(0),
        epochs=12,
        independent_epochs=8,
        extraction_epochs=40,
        panel=panel_specs(8, rotation_invariant=False),
        losses=("mse", "infonce"),
        independents=tuple(s for s in INDEPENDENTS if s.name in ("foreign_key", "half_turn")),
    )
    return Job(folder, config, run_job(digits, folder, config))


Run = Callable[..., tuple[int, str, str]]
Audit = Callable[..., tuple[int, str]]

LIMIT = 60.0
"""Seconds within which every case ends, whatever the machine is doing beside it."""


def children() -> set[int]:
    """Processes that this one has started and that are still there (Linux)."""
    found = set()
    for task in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in task.read_text().split()}
    return found


@pytest.fixture
def audit_hostile(
    claim_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Audit:
    """Audits a file as a user does: exit code and what was said; checks that nothing is left behind."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"

    def call(suspect: Path, *options: str) -> tuple[int, str]:
        monkeypatch.setenv("TMPDIR", str(temporary))  # here, not before: making some suspects leaves files of its own
        monkeypatch.setattr(tempfile, "tempdir", None)
        before, mode, start = children(), os.stat(suspect).st_mode if suspect.exists() else 0, time.monotonic()
        monkeypatch.setattr(
            sys, "argv", ["turnmark", "audit", str(suspect), "--claim", str(claim_folder), "--out", "report", *options]
        )
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        said = captured.out + captured.err
        gc.collect()
        assert time.monotonic() - start < LIMIT
        assert "Traceback" not in said
        assert "\x1b[31m" not in said.replace("\x1b[31merror", ""), "a suspect's bytes reached the terminal"
        assert not marker.exists(), "the payload fired"
        assert children() == before, "a process was left"
        assert not list(temporary.iterdir()), "temporary files were left"
        assert not suspect.exists() or os.stat(suspect).st_mode == mode
        if code in (2, 4, 6):
            lines = captured.err.splitlines()
            assert sum(line.startswith("error:") for line in lines) == 1, said
            assert not (tmp_path / "report/report.json").exists()
        else:
            assert code in (0, 1), said
            assert (tmp_path / "report/report.html").is_file()
        return int(str(code)), said

    return call


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["turnmark", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return int(end.value.code or 0), captured.out, captured.err

    return call
