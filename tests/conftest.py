"""Small real pieces for the tests: random-convolution encoders that stand in for trained ones, and one good claim."""

from __future__ import annotations

import os

# before torch is imported, and inherited by every process that a test starts: on tiny models a second thread only costs
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import gc
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from support.claims import Sealed
from support.command import LIMIT, Audit, Run, children
from support.encoders import Noisy, encoder, member
from support.job import Job
from support.shared import once
from torch import nn

from attacks_for_eval.claims.panel_spec import PanelSpec, panel_specs
from attacks_for_eval.demo import INDEPENDENTS, JobConfig, run_job
from cli.main import main
from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.encoders.architectures import Encoder
from ownership.plan import Plan
from ownership.watermark import RotationPredictor, Watermark, WatermarkKey
from watermark_training.config import TrainConfig
from watermark_training.data import Data, load_data
from watermark_training.training import Trained, train

pytest_plugins = ["support.budget", "support.recorded", "support.sealed_claims", "support.signed_reports"]


@pytest.fixture(scope="session")
def digits() -> Data:
    return load_data("digits")


@pytest.fixture(scope="session")
def key() -> WatermarkKey:
    return WatermarkKey(sector_boundaries=(0.91357, 0.91357 + torch.pi), margin=0.3, predictor_seed=3)


@pytest.fixture(scope="session")
def victim() -> Encoder:
    return encoder(1)


@pytest.fixture(scope="session")
def near(victim: Encoder) -> Noisy:
    """A copy with some noise: its scores are no round numbers."""
    return Noisy(victim, 7, 0.002)


@pytest.fixture(scope="session")
def trained(digits: Data, key: WatermarkKey, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A really trained small watermarked encoder."""
    config = TrainConfig(arch="tiny", epochs=25, batch_size=64, lr=2e-3, temperature=0.2, min_crop=0.3, flip=False)
    config = replace(config, watermark="secret", watermark_fraction=0.5)  # few images, few epochs
    return once(tmp_path_factory, "trained", lambda _: train(digits.images[:256], config, key=key))


@pytest.fixture(scope="session")
def claim(digits: Data, victim: Encoder, key: WatermarkKey) -> Claim:
    """A claim over untrained encoders: victim, 5 plain, 5 watermarked, one reference close to the victim.

    Every process makes its own, and `claim_folder` is made by one of them: nothing here may be left to chance.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)).eval()
    panel = [
        NamedEncoder(member(f"m{i}", "plain" if i < 5 else "watermarked", e := encoder(10 + i)), e) for i in range(10)
    ]
    # the digits are ordered by writer: unshuffled, private and public ones can be told apart without any encoder
    images = digits.images[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    return build_claim(
        NamedEncoder(member("victim", "victim", victim), victim),
        ClaimImages(
            images[:300],
            images[300:900],
            view=lambda x, g: (x + 0.1 * torch.randn(x.shape, generator=g)).clamp(0, 1),
        ),
        panel,
        plan=Plan(n_public=300, n_watermark=100, n_private=100),
        watermark=Watermark(key=key, predictor=RotationPredictor(64, key.predictor_seed).eval()),
        projection_head=head,
        references=[NamedEncoder(member("reference_mse", "reference"), Noisy(victim, 5, 0.002))],
    )


@pytest.fixture(scope="session")
def claim_folder(claim: Claim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(place: Path) -> Path:
        claim.save(place / "claim")
        return place / "claim"

    return once(tmp_path_factory, "claim_folder", make)


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


@pytest.fixture(scope="session")
def job(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A real run with a panel and a rotation watermark, shortened: fewer epochs, two losses, two independent encoders.

    Eight members a stratum, not five: independent encoders trained this briefly scatter, and whether a
    reference then comes beyond a threshold of four degrees of freedom depended on the kind of CPU.
    """
    config = replace(
        JobConfig(),
        watermark="secret",
        epochs=12,
        independent_epochs=8,
        extraction_epochs=40,
        reference_epochs=100,
        panel=panel_specs(8, rotation_invariant=False),
        losses=("mse", "infonce"),
        independents=(
            PanelSpec(name="foreign_key", watermark="secret", trains_on_private=True),
            PanelSpec(name="half_turn", watermark="paper", trains_on_private=True),
        ),
    )

    def make(place: Path) -> Job:
        folder = place / "Prüfung 1"
        return Job(folder, config, run_job(digits, folder, config))

    return once(tmp_path_factory, "job", make)


@pytest.fixture(scope="session")
def keyed_job(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The demo, shortened: fewer epochs, one loss, one independent encoder, which carries another owner's key."""
    config = replace(
        JobConfig(),
        epochs=25,
        independent_epochs=10,
        extraction_epochs=30,
        reference_epochs=40,
        losses=("mse",),
        independents=tuple(s for s in INDEPENDENTS if s.name == "other_owner"),
    )

    def make(place: Path) -> Job:
        return Job(place, config, run_job(digits, place, config))

    return once(tmp_path_factory, "keyed_job", make)


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
