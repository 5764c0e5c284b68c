"""`--pool` of `turnmark audit` and `turnmark report reproduce`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.command import Run, error_line
from support.encoders import encoder
from support.keys import claimed

from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of
from watermark_training.data import load_data
from watermark_training.encoder_files import weights_bytes

AUDIT = ("audit", "suspect.safetensors", "--claim", "claim", "--out", "report")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A claim with a key of 200 probes, its pool of 320 images, and an independent encoder."""
    monkeypatch.chdir(tmp_path)
    images = load_data("digits[:320]").images
    material = KeyMaterial.draw(Key(secret=bytes(32), pool=pool_of(images), probes=200), images)
    claimed(encoder(1), material, material.probes).save(tmp_path / "claim")
    np.savez(tmp_path / "pool.npz", x=images.numpy()[:, 0])
    np.savez(tmp_path / "others.npz", x=load_data("digits[400:720]").images.numpy()[:, 0])
    (tmp_path / "suspect.safetensors").write_bytes(weights_bytes(encoder(2), "tiny"))
    return tmp_path


def test_the_pool_is_asked_and_the_report_repeats(run: Run, files: Path) -> None:
    code, out, err = run(*AUDIT, "--pool", "pool.npz")
    assert code == 1, err
    assert "no sign that the suspect answers probes differently" in " ".join(out.split())
    stored = json.loads(Path("report/report.json").read_text())
    assert (stored["pool_test"]["probes"], stored["pool_test"]["others"]) == (200, 120)
    assert "--pool pool.npz" in stored["command"]
    again = ("report", "reproduce", "report", "--claim", "claim", "--suspect", "suspect.safetensors")
    code, out, err = run(*again, "--pool", "pool.npz")
    assert code == 0, err
    assert "--pool" not in out
    code, out, err = run(*again)
    assert code == 0, err
    assert "--pool was not given" in " ".join(out.split())


def test_wrong_pools_are_refused_before_the_suspect_is_asked(run: Run, files: Path) -> None:
    for pool, said in (
        ("others.npz", "not the ones that the key was made for"),
        ("nope.npz", "does not exist"),
        ("suspect.safetensors", "suspect.safetensors"),
    ):
        code, _, err = run(*AUDIT, "--pool", pool)
        assert (code, said in error_line(err)) == (2, True), err
    assert not Path("report").exists()


def test_recorded_representations_cannot_be_asked(run: Run, files: Path) -> None:
    np.save("recorded.npy", np.zeros((4, 4)))
    Path("probes").mkdir()
    command = ("audit", "recorded.npy", "--probe-folder", "probes", "--claim", "claim", "--pool", "pool.npz")
    code, _, err = run(*command)
    assert (code, "--pool does not apply" in " ".join(err.split())) == (2, True), err
