"""The command: the steps by hand on real files, exit codes, one line an error, no traceback."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import Run, error_line
from support.encoders import encoder
from support.job import Job

from ownership.encoders.architectures import Encoder
from ownership.io.canonical import sha256
from watermark_training.encoder_files import onnx_bytes, weights_bytes
from watermark_training.loaded_encoder import load_trained


def test_audit_prints_and_writes_the_report(run: Run, job: Job, tmp_path: Path) -> None:
    suspect = job.folder / "suspects/surrogate_mse.onnx"
    code, out, _ = run("audit", suspect, "--claim", job.folder / "claim")
    assert code == 0
    assert out.startswith("SUPPORTED")
    assert "report-surrogate_mse-onnx/report.html" in out
    stored = json.loads((tmp_path / "report-surrogate_mse-onnx/report.json").read_text())
    assert stored["verdict"] == "SUPPORTED"
    assert (tmp_path / "report-surrogate_mse-onnx/report.html").is_file()
    code, out, _ = run("audit", suspect, "--claim", job.folder / "claim", "--json")
    assert json.loads(out) == stored
    code, out, _ = run("audit", job.folder / "suspects/independent_foreign_key.onnx", "--claim", job.folder / "claim")
    assert code == 1
    assert out.startswith("NOT_SUPPORTED")


def test_the_reports_command_reproduces_it(run: Run, job: Job, tmp_path: Path) -> None:
    """The report's command names files without their folders; the same audit gives the same bytes."""
    suspect = job.folder / "suspects/surrogate_mse.safetensors"
    run("audit", suspect, "--claim", job.folder / "claim", "--out", tmp_path / "first")
    stored = (tmp_path / "first/report.json").read_bytes()
    assert json.loads(stored)["command"] == "turnmark audit surrogate_mse.safetensors --claim claim"
    run("audit", suspect, "--claim", job.folder / "claim", "--out", tmp_path / "second")
    assert (tmp_path / "second/report.json").read_bytes() == stored


@pytest.mark.slow
def test_the_steps_by_hand(run: Run, job: Job, tmp_path: Path) -> None:
    """README, "By hand": train, claim build with folders and a bare file, claim show, steal, audit."""
    common = ("--arch", "tiny", "--batch-size", 64, "--lr", 0.002, "--temperature", 0.2, "--no-flip", "--device", "cpu")
    rotation = ("--watermark", "secret")
    code, out, _ = run("train", "digits[:300]", "--out", "victim", *common, "--epochs", 6, *rotation, "--key-seed", 5)
    assert code == 0, out
    assert {p.name for p in Path("victim").iterdir()} - {"tensorboard"} == {
        "encoder.safetensors", "encoder.onnx", "predictor.safetensors", "projection_head.safetensors", "config.json",
        "metrics.jsonl", "training.png", "README.md",
    }  # fmt: skip
    assert Path("victim/predictor.safetensors").stat().st_mode & 0o077 == 0
    assert len(Path("victim/metrics.jsonl").read_text().splitlines()) == 6
    config = Path("victim/config.json").read_text()
    assert "sector_boundaries" not in config
    code, out, _ = run("train", "digits[:300]", "--out", "victim", *common, "--epochs", 6, *rotation)
    assert (code, out.splitlines()[0]) == (0, "already trained: victim/encoder.safetensors, victim/encoder.onnx")
    (tmp_path / "bare.safetensors").write_bytes(weights_bytes(encoder(31), "tiny"))
    models = [job.folder / f"models/panel_{s}" for s in ("plain_0", "plain_1", "plain_2", "plain_3")]
    models += [job.folder / f"models/panel_watermarked_{i}" for i in range(5)]
    panel = [part for m in models for part in ("--panel", m)] + ["--panel", "plain:bare.safetensors"]
    build = ("claim", "build", "victim", "--private", "digits[:300]", "--public", "digits[300:1000]")
    code, out, err = run(*build, *panel, "--out", "claim", "--reference-epochs", 20, "--device", "cpu")
    assert code == 0, err
    assert "5 plain, 5 watermarked" in out
    code, shown, _ = run("claim", "show", "claim")
    assert code == 0
    assert shown.strip() in out
    code, out, _ = run("attack", "extract", "victim", "digits[1000:1600]", "--loss", "mse",
                       "--n-queries", 600, "--out", "copy",
                       "--epochs", 80, "--batch-size", 64, "--lr", 0.002)  # fmt: skip
    assert code == 0
    assert "600 queries" in out
    assert json.loads(Path("copy/config.json").read_text())["queries"] == 600
    code, out, _ = run("audit", "copy/encoder.onnx", "--claim", "claim")
    assert code == 0, out
    code, out, _ = run("audit", "bare.safetensors", "--claim", "claim")
    assert code == 1


def test_a_claim_without_a_predictor(run: Run, job: Job) -> None:
    """VICTIM may be any loadable file; alone it has no key and no predictor, and the claim only the panel."""
    loaded = load_trained(job.folder / "models/victim").encoder
    assert isinstance(loaded, Encoder)
    victim = Path("alone.onnx")
    victim.write_bytes(onnx_bytes(loaded, (16, 16)))
    panel = [p for i in range(5) for p in ("--panel", job.folder / f"models/panel_plain_{i}")]
    panel += [p for i in range(5) for p in ("--panel", job.folder / f"models/panel_watermarked_{i}")]
    code, out, err = run("claim", "build", victim, "--private", "digits[:100]", "--public", "digits[100:500]",
                         *panel, "--out", "claim", "--no-reference")  # fmt: skip
    assert code == 0, err
    assert "key         none" in out
    code, out, _ = run("audit", job.folder / "suspects/surrogate_mse.onnx", "--claim", "claim", "--json")
    report = json.loads(out)
    assert code == 0
    assert "watermark_success" in report["skipped"]


def test_bad_input_is_one_line_and_a_documented_code(run: Run, job: Job, tmp_path: Path) -> None:
    claim, good = job.folder / "claim", job.folder / "suspects/surrogate_mse.onnx"
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(os.getcwd, protocol=2))
    (tmp_path / "text.onnx").write_text("no model")
    torch.save(encoder(3).state_dict(), tmp_path / "tiny.pt")
    (tmp_path / "in the way").write_text("a file")
    broken = shutil.copytree(claim, tmp_path / "broken")
    data = bytearray((broken / "probes.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (broken / "probes.safetensors").write_bytes(bytes(data))
    (tmp_path / "grey.npz").write_bytes(b"PK broken")
    whole_file = (job.folder / "models/victim/encoder.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole_file[: int.from_bytes(whole_file[:8], "little") // 2])
    np.savez(tmp_path / "small.npz", x=np.zeros((50, 4, 4), np.uint8))
    panel = [p for i in range(3) for p in ("--panel", job.folder / f"models/panel_plain_{i}")]
    whole = [
        p for m in ("plain", "watermarked") for i in range(5) for p in ("--panel", job.folder / f"models/panel_{m}_{i}")
    ]
    build = ("claim", "build", job.folder / "models/victim", "--private", "digits[:50]", "--public", "digits[50:400]")
    victim = job.folder / "models/victim"
    extract = ("attack", "extract", victim)
    cases: list[tuple[int, str, tuple[object, ...]]] = [
        (2, "does not exist", ("audit", "nothing.onnx", "--claim", claim)),
        (2, "folder without weights", ("audit", job.folder, "--claim", claim)),
        (2, "is empty", ("audit", "empty.pt", "--claim", claim)),
        (2, "would run code", ("audit", "evil.pt", "--claim", claim)),
        (2, "unknown format", ("audit", "text.onnx", "--claim", claim)),
        (2, "does not fit small", ("audit", "tiny.pt", "--claim", claim, "--arch", "small")),
        (2, "unknown architecture", ("audit", "tiny.pt", "--claim", claim, "--arch", "x")),
        (2, "is no claim", ("audit", good, "--claim", tmp_path)),
        (6, "does not match its digest", ("audit", good, "--claim", broken)),
        (6, "does not match its digest", ("claim", "show", broken)),
        (2, "cannot write", ("audit", good, "--claim", claim, "--out", tmp_path / "in the way" / "x")),
        (2, "too small a panel", (*build, *panel, "--out", "c", "--no-reference")),
        (2, "200 of 400 public images are among the private ones", (
            "claim", "build", victim, "--private", "digits[:200]", "--public", "digits[:400]", *whole, "--out", "c",
            "--no-reference",
        )),
        (2, "exists already", (*build, *whole, "--out", claim, "--no-reference")),
        (2, "is not a train folder", (*build, "--panel", tmp_path, "--out", "c")),
        (2, "not a readable", ("train", "grey.npz", "--out", "v")),
        (2, "too small", ("train", "small.npz", "--out", "v")),
        (2, "nor a known data set", ("train", "nowhere", "--out", "v")),
        (2, "unknown architecture", ("train", "digits", "--out", "v", "--arch", "x")),
        (2, "unknown architecture", ("train", "digits", "--out", "v", "--arch", "torchvision:resnet81")),
        (2, "unknown watermark", ("train", "digits", "--out", "v", "--watermark", "x")),
        (2, "unknown device", ("train", "digits", "--out", "v", "--device", "quantum")),
        (2, "queries from", (*extract, "digits[:40]", "--out", "t")),
        (2, "a bracket is missing", ("train", "digits[500:1100", "--out", "v")),
        (2, "the victim has no key, and there is no panel", (
            "claim", "build", victim, "--public", "digits[300:700]", "--out", "c",
        )),
        (2, "damaged safetensors", ("audit", "half.safetensors", "--claim", claim)),
        (2, "in the future", ("audit", good, "--claim", claim, "--published", "2999-01-01")),
        (2, "probes of a pool of 200 images", ("key", "new", "digits[:200]", "--n-probes", 300, "--out", "k")),
        (2, "unknown loss", (*extract, "digits", "--loss", "x", "--out", "t")),
        (2, "unknown method", (*extract, "digits", "--method", "x", "--out", "t")),
        (2, "cont-steal means loss", (*extract, "digits", "--method", "cont-steal", "--loss", "mse", "--out", "t")),
        (2, "mse has no temperature", (*extract, "digits", "--temperature", 1, "--out", "t")),
        (2, "unknown output kind", (*extract, "digits", "--output-kind", "x", "--out", "t")),
        (2, "does not return representations", (*extract, "digits", "--task", "digits", "--out", "t")),
        (2, "unknown output kind", ("audit", good, "--claim", claim, "--output-kind", "x")),
        (2, "another configuration", ("train", "digits[:99]", "--out", job.folder / "models/victim", "--epochs", 1)),
    ]  # fmt: skip
    for code, said, arguments in cases:
        got, _out, err = run(*arguments)
        assert said in error_line(err), arguments
        assert got == code, (arguments, err)
        assert "hint:" in err or "--help' for help" in err
    assert not (tmp_path / "c").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # nothing half-written


def test_usage_errors_end_with_2_and_help_with_0(run: Run) -> None:
    assert run("audit")[0] == 2
    assert run("nonsense")[0] == 2
    assert run("--help")[0] == 0
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("turnmark ")
    for command in (
        ("train",),
        ("claim",),
        ("claim", "build"),
        ("claim", "show"),
        ("claim", "power"),
        ("attack",),
        ("attack", "extract"),
        ("attack", "linear-eval"),
        ("audit",),
        ("demo",),
    ):
        code, out, _ = run(*command, "--help")
        assert code == 0
        assert "Usage" in out


def test_a_full_disk_is_one_line(run: Run, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run(
        "audit", job.folder / "suspects/surrogate_mse.onnx", "--claim", job.folder / "claim", "--out", "r"
    )
    assert code == 2
    assert "No space left on device" in error_line(err)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupting_ends_with_130_and_resumes(tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "v"), "--arch", "tiny", "--epochs", "400", "--device", "cpu"]
    command = [sys.executable, "-m", "cli.main", "train", "digits[:400]", *options, "--batch-size", "64"]
    # a shell's background job has SIGINT ignored, and so would the child
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, preexec_fn=heed)
    deadline = time.monotonic() + 60
    while not (tmp_path / "v/checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert b"interrupted; finished parts are kept" in err
    assert torch.load(tmp_path / "v/checkpoint.pt", weights_only=True)["epoch"] >= 1
    assert not (tmp_path / "v/config.json").exists()


@pytest.mark.slow
def test_the_demo_as_a_user_runs_it(run: Run, tmp_path: Path) -> None:
    """The whole demo, both file forms of eight suspects: two minutes."""
    code, out, err = run("demo", "--out", tmp_path / "demo")
    assert code == 0, out + err
    assert out.count("NOT_SUPPORTED") == 8
    assert out.count(" SUPPORTED") == 6
    assert "report.html" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_linear_eval_prints_an_accuracy_with_its_interval(run: Run, job: Job, tmp_path: Path) -> None:
    victim = job.folder / "models/victim"
    code, out, _ = run("attack", "linear-eval", victim, "digits[:900]", "--test", "digits[900:1400]")
    assert code == 0
    accuracy = float(out.split("top-1 ")[1].split()[0])
    assert accuracy > 85
    assert "500 test images" in out
    np.savez(tmp_path / "unlabelled.npz", x=np.zeros((50, 16, 16), np.uint8))
    code, _, err = run("attack", "linear-eval", victim, "unlabelled.npz", "--test", "digits[:90]")
    assert code == 2
    assert "needs labels" in error_line(err)
    assert run("attack", "linear-eval", victim, "digits", "--test", "digits", "--classifier", "magic")[0] == 2


def test_the_auditors_own_encoders_by_command(run: Run, job: Job, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    shutil.copyfile(job.folder / "suspects/independent_foreign_key.onnx", own / "a.onnx")
    (own / "a.txt").write_text("trained here\nin the auditor's house")
    (own / "b.safetensors").write_bytes(weights_bytes(encoder(50), "tiny"))
    suspect = job.folder / "suspects/surrogate_mse.safetensors"
    code, out, _ = run("audit", suspect, "--claim", job.folder / "claim", "--auditor-panel", own, "--out", "r")
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert [m["provenance"] for m in report["auditor_panel"]] == ["trained here in the auditor's house", ""]
    assert len(report["auditor_positives"]) == 0
    assert "0 of the auditor's own 2 independent encoders" in " ".join(out.split())
    assert code == (0 if report["verdict"] == "SUPPORTED" else 1)
    (tmp_path / "empty").mkdir()
    code, _, err = run("audit", suspect, "--claim", job.folder / "claim", "--auditor-panel", tmp_path / "empty")
    assert code == 2
    assert "contains no encoders" in error_line(err)


def test_claim_power_says_what_can_be_found(run: Run, job: Job) -> None:
    code, out, err = run("claim", "power", job.folder / "claim", "--json", "--n-probes", 100)
    assert code == 0, err
    assert json.loads(out)["key_test"] == []  # the claim has no key
    found = json.loads(out)["primary_tests"]
    assert next(iter(found)) == "100"
    for rows in found.values():
        assert "partial_rsa_relative" in {p["statistic"] for p in rows}
        assert {p["statistic"] for p in rows} <= {
            "partial_rsa_relative",
            "watermark_probability",
            "partial_rsa_rotated",
        }
        assert all(0 <= p["interval"][0] <= p["power"] <= p["interval"][1] <= 1 for p in rows)
    code, out, _ = run("claim", "power", job.folder / "claim")
    assert code == 0
    assert "partial_rsa" in out


def test_methods_and_kinds_of_answers_by_command(run: Run, job: Job, tmp_path: Path) -> None:
    """A named method, extraction from labels, a second stage, and an audit of a declared classifier."""
    victim = job.folder / "models/victim"
    few = ("--n-queries", 64, "--epochs", 1, "--batch-size", 32, "--device", "cpu")
    assert run("attack", "extract", victim, "digits[:99]", "--method", "cont-steal", *few, "--out", "cont")[0] == 0
    record = json.loads((tmp_path / "cont/config.json").read_text())
    assert (record["extraction"]["loss"], record["extraction"]["temperature"], record["queries"]) == (
        "infonce",
        0.5,
        64,
    )
    labels = ("--output-kind", "labels", "--task", "digits[:300]")
    code, out, _ = run("attack", "extract", victim, "digits[300:400]", *labels, *few, "--out", "labels")
    assert code == 0
    assert "64 queries" in out
    assert run("attack", "extract", "cont", "digits[400:500]", *few, "--out", "second")[0] == 0
    first = sha256((tmp_path / "cont/encoder.safetensors").read_bytes())
    assert json.loads((tmp_path / "second/config.json").read_text())["victim_sha256"] == first
    claim = ("--claim", job.folder / "claim", "--output-kind", "logits", "--out", "r")
    code, out, _ = run("audit", "second/encoder.onnx", *claim)
    assert code == 1
    assert "INCONCLUSIVE" in out
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert "--output-kind logits" in report["command"]
    assert not report["auditor_panel"]
    assert not any(r["primary"] for r in report["results"])


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_serve_and_steal_over_http(run: Run, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server process: the extraction needs the token, and the server says what it answered when stopped."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("TURNMARK_TOKEN", "abc")
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "attack",
        "serve",
        str(job.folder / "models/victim"),
        "--port",
        str(port),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None
            assert time.monotonic() < deadline
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        address = f"http://127.0.0.1:{port}/represent"
        extraction = (
            "attack",
            "extract",
            address,
            "digits[:100]",
            "--n-queries",
            100,
            "--epochs",
            1,
            "--device",
            "cpu",
            "--out",
            "t",
        )
        assert "--surrogate-arch" in run(*extraction)[2]
        code, out, _ = run(*extraction, "--surrogate-arch", "tiny")
        assert code == 0
        assert "100 queries" in out
        monkeypatch.setenv("TURNMARK_TOKEN", "wrong")
        code, _, err = run(*extraction[:-1], "u", "--surrogate-arch", "tiny")
        assert code == 2
        assert "HTTP 401" in error_line(err)
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=30)
    finally:
        server.kill()
        server.wait()
    assert "answered 100 images, 100 of them different" in out
    assert "Traceback" not in err
