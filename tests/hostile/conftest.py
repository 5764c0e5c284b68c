"""Fixtures: one warm sandbox that opens many hostile files, beside the real command; a key, and a claim with it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.command import LIMIT, children
from support.encoders import encoder
from support.keys import claimed, rewritten
from support.warm_sandbox import Open, Outcome, WarmSandbox
from torch import Tensor

from ownership.auditing.session import SuspectSession
from ownership.claims.claim import Claim
from ownership.errors import OwnershipError
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of
from ownership.suspects.formats.model_file import LoadOptions
from ownership.suspects.sandbox.encoder import Limits
from watermark_training.data import Data


@pytest.fixture(scope="session")
def warm_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSandbox]:
    sandbox = WarmSandbox(tmp_path_factory.mktemp("warm"))
    yield sandbox
    sandbox.close()
    assert not sandbox.process_ids()
    assert not sandbox.private_folder().exists()


@pytest.fixture
def open_hostile(warm_sandbox: WarmSandbox, claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens and queries a file as an audit does, in the warm sandbox; checks that nothing is left behind."""
    temporary, marker = tmp_path / "tmp", tmp_path / "marker"
    temporary.mkdir()

    def call(suspect: Path, options: LoadOptions | None = None, limits: Limits | None = None) -> Outcome:
        monkeypatch.setenv("TMPDIR", str(temporary))  # here, not before: making some suspects leaves files of its own
        monkeypatch.setattr(tempfile, "tempdir", None)
        mode, start = os.stat(suspect).st_mode if suspect.exists() else 0, time.monotonic()
        others = children() - warm_sandbox.process_ids()
        session = SuspectSession(warm_sandbox, claim, suspect.name)
        try:
            warm_sandbox.reopen(suspect, options or LoadOptions(), limits or Limits())
            session.query({name: len(images) for name, images in claim.probes.items()})
            outcome = Outcome(
                exit_code=1,
                said="; ".join(p.detail for p in session.problems),
                problems=tuple(p.code for p in session.problems),
            )
        except OwnershipError as e:
            outcome = Outcome(exit_code=e.exit_code, said=f"{e.message} ({e.hint})")
        assert time.monotonic() - start < LIMIT
        assert "\n" not in outcome.said
        assert "\x1b" not in outcome.said, "a suspect's bytes would reach the terminal"
        assert not marker.exists(), "the payload fired"
        assert children() - warm_sandbox.process_ids() == others, "a process was left"
        assert not list(temporary.iterdir()), "temporary files were left"
        assert not suspect.exists() or os.stat(suspect).st_mode == mode
        return outcome

    return call


@pytest.fixture(scope="module")
def pool(digits: Data) -> Tensor:
    return digits.images[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[:400]]


@pytest.fixture(scope="module")
def material(pool: Tensor) -> KeyMaterial:
    return KeyMaterial.draw(Key(secret=bytes(range(32)), pool=pool_of(pool), probes=300), pool)


@pytest.fixture
def folder(material: KeyMaterial, pool: Tensor, tmp_path: Path) -> Path:
    claimed(encoder(1), material, pool).save(tmp_path / "claim")
    Claim.load(rewritten(tmp_path / "claim", {}))
    return tmp_path / "claim"
