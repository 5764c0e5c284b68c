"""`turnmark twins`, from training to a report, with a timestamp authority on this machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from support.beacon import NAMED, REPLY
from support.command import Run, error_line
from support.tsa import make_authority

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from ownership.claims.twins import Twins
from ownership.reports.report import Report
from watermark_training.data import Data
from watermark_training.encoder_files import save_encoder
from watermark_training.loaded_encoder import load_trained


def test_three_twins_from_training_to_a_report(run: Run, digits: Data, tmp_path: Path) -> None:
    """Three twins cannot reach any alpha: the report shows their rank, and the verdict is the key's."""
    authority = make_authority(tmp_path / "tsa", "Twin authority")
    np.savez("pool.npz", x=digits.images[:300].numpy())
    np.savez("data.npz", x=digits.images[300:420].numpy())
    assert run("key", "new", "pool.npz", "--out", "key", "--n-probes", 200)[0] == 0
    names = ["v0", "v1", "v2"]
    options = ("--arch", "tiny", "--epochs", 6, "--batch-size", 40, "--lr", 2e-3, "--key", "key")
    for seed, name in enumerate(names):
        code, _, err = run("train", "data.npz", *options, "--seed", seed, "--out", name)
        assert code == 0, err

    code, out, err = run("twins", "commit", *names, "--out", "twins")
    assert code == 0, err
    assert "no twin is picked yet" in err
    assert "deploy this one" not in out
    assert run("twins", "request", "twins", "twins.tsq")[0] == 0
    authority.reply(tmp_path / "twins.tsq", tmp_path / "twins.tsr")
    assert authority.accepts(tmp_path / "twins.tsr", Path("twins/commitment.json"))
    refused = ("claim", "build", "v0", "--twins", "twins", "--no-reference", "--out", "claim")
    assert "none is picked yet" in error_line(run(*refused)[2])
    code, out, err = run("twins", "anchor", "twins", "--reply", "twins.tsr", "--roots", authority.roots)
    assert code == 0, err
    assert out.count("deploy this one") == 1
    shown = next(line for line in out.splitlines() if "deploy this one" in line)
    assert sum(f", {name}  <-" in shown for name in names) == 1  # its train folder, not only its digest
    assert "anchored already" in error_line(run("twins", "anchor", "twins", "--reply", "twins.tsr")[2])
    assert "which chains to" in run("twins", "show", "twins", "--roots", authority.roots)[1]
    assert Path("twins/commitment.tsr").read_bytes() == Path("twins.tsr").read_bytes()

    twins = Twins.load("twins")
    digests = {load_trained(name).sha256: name for name in names}
    victim = digests[twins.commitment.twins[twins.picked].encoder]
    other = next(name for name in names if name != victim)
    build = ("--public", "pool.npz", "--twins", "twins", "--no-reference", "--out", "claim")
    assert "not the twin that was picked" in error_line(run("claim", "build", other, *build)[2])
    code, out, err = run("claim", "build", victim, *build, "--twins-tried", 1, "--twins-alpha", 0.05)
    assert code == 0, err
    assert "picked 1 of 3" in out
    assert "shown and does not decide" in out

    attack = ExtractionConfig(loss="mse", arch="tiny", queries=400, epochs=40, batch_size=50, lr=2e-3)
    copy = extract(BlackBox(load_trained(victim).encoder), digits.images[420:820], attack)
    Path("copy").mkdir()
    save_encoder(copy, "tiny", Path("copy"))
    (weights,) = Path("copy").glob("*.safetensors")
    code, out, err = run("audit", weights, "--claim", "claim", "--roots", authority.roots, "--out", "report")
    assert code in (0, 1), err
    assert "of the 2 twins of the deployed encoder, 0 are as close" in " ".join(out.split())
    report = Report.load("report/report.json")
    assert report.findings.twins is not None
    assert (report.findings.twins.pvalue, report.findings.twins_decide) == (pytest.approx(1 / 3), False)
    assert report.findings.error_rate == pytest.approx(1e-4)
    assert "The test of twins" in Path("report/report.html").read_text()


def test_what_cannot_be_twins_and_twins_that_a_round_picks_from(run: Run, digits: Data) -> None:
    np.savez("pool.npz", x=digits.images[:150].numpy())
    np.savez("data.npz", x=digits.images[150:200].numpy())
    options = ("--arch", "tiny", "--epochs", 1, "--batch-size", 25, "--lr", 2e-3)
    for key in ("key", "other"):
        assert run("key", "new", "pool.npz", "--out", key, "--n-probes", 100)[0] == 0
    for name, more in {
        "a": ("--key", "key"),
        "b": ("--key", "other", "--seed", 1),
        "c": ("--key", "key", "--seed", 1, "--temperature", 0.3),
        "d": ("--key", "key", "--seed", 1),
    }.items():
        code, _, err = run("train", "data.npz", *options, *more, "--out", name)
        assert code == 0, err
    assert "different keys" in error_line(run("twins", "commit", "a", "b", "--out", "twins")[2])
    assert "differ in train" in error_line(run("twins", "commit", "a", "c", "--out", "twins")[2])
    assert "occurs twice" in error_line(run("twins", "commit", "a", "a", "--out", "twins")[2])
    assert "1 encoders are no twins" in error_line(run("twins", "commit", "a", "--out", "twins")[2])
    assert not Path("twins").exists()
    assert "holds no twins.json" in error_line(run("twins", "show", "a")[2])
    assert run("twins", "anchor", "a")[0] == 2
    assert "--twins-tried needs --twins" in run("claim", "build", "a", "--twins-tried", 2, "--out", "claim")[2]

    soon = datetime.now(UTC) + timedelta(days=2)
    code, out, err = run("twins", "commit", "a", "d", "--out", "twins", "--beacon-time", soon.isoformat())
    assert code == 0, err
    assert "to be signed at" in out
    assert "no twin is picked yet" in err
    assert "publish it before" in err
    assert "deploy this one" not in out
    assert "wait until then" in run("twins", "anchor", "twins", "--beacon", "http://127.0.0.1:9")[2]
    refused = run("claim", "build", "a", "--twins", "twins", "--no-reference", "--out", "claim")
    assert "none of the twins is picked yet: round" in error_line(refused[2])
    signed_already = run("twins", "commit", "a", "d", "--out", "late", "--beacon-time", "2026-01-01")
    assert "signed already" in error_line(signed_already[2])

    waiting = Twins.load("twins")
    waiting.signed(waiting.commitment.drawn(NAMED)).save("past")  # as it was before a round that is signed since
    Path("round.json").write_bytes(REPLY)
    code, out, err = run("twins", "anchor", "past", "--beacon-reply", "round.json")
    assert code == 0, err
    assert out.count("deploy this one") == 1
    assert "the commitment has no date" in err
    assert "waits for no round" in error_line(run("twins", "anchor", "past", "--beacon-reply", "round.json")[2])
    assert Twins.load("past").commitment.picked is not None
    assert "give one of" in run("twins", "anchor", "past")[2]
