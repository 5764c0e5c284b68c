"""The commands on endpoints and recorded rows: audit, export of probes, options, reproduction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import Run, error_line
from support.encoders import Noisy
from support.http_server import serving

from ownership.encoders.architectures import Encoder
from ownership.encoders.images import represent


def test_the_command_audits_an_endpoint(
    run: Run, claim_folder: Path, victim: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fails midway with one line and exit 2, goes on when repeated, and writes of the address only its host."""
    monkeypatch.setenv("TURNMARK_TOKEN", "s3same")
    with serving(victim) as (server, url):
        server.misbehaviour, server.good = (lambda h: h.reply(402, b"")), 4
        folder = f"report-127.0.0.1_{server.server_address[1]}-endpoint"
        code, _, err = run("audit", url, "--claim", claim_folder)
        assert code == 2
        assert [line for line in err.splitlines() if line.startswith("error:")] == [
            "error: the endpoint refused: HTTP 402"
        ]
        assert "repeat the command to go on" in err
        assert "up to" in err
        assert "with --stop-early possibly only 250" in err
        paid = server.images
        server.misbehaviour = None
        code, out, _ = run("audit", url, "--claim", claim_folder, "--request-size", 32)
        assert code == 0
        assert out.startswith("SUPPORTED")
        report = json.loads((tmp_path / folder / "report.json").read_text())
        assert server.images == report["queries"] > paid
        assert all(headers["Authorization"] == "Bearer s3same" for headers, _ in server.requests)
    assert (
        report["command"]
        == f"turnmark audit http://127.0.0.1:{server.server_address[1]}/... --claim {claim_folder.name}"
    )
    for path in (tmp_path / folder).rglob("*.*"):
        assert b"s3cret" not in path.read_bytes()
        assert b"s3same" not in path.read_bytes()


def test_the_command_exports_probes_and_audits_what_was_recorded(
    run: Run, claim_folder: Path, victim: Encoder, tmp_path: Path
) -> None:
    from PIL import Image

    code, out, _ = run("claim", "probes", claim_folder, "--out", "probes", "--decoys", "digits[:300]")
    assert code == 0
    assert "pictures written: probes" in out
    files = sorted((tmp_path / "probes").glob("*.png"))
    pictures = torch.from_numpy(np.stack([np.array(Image.open(f)) for f in files])).permute(0, 3, 1, 2)
    np.save("recorded.npy", represent(victim, pictures).numpy())
    code, out, _ = run("audit", "recorded.npy", "--probe-folder", "probes", "--claim", claim_folder)
    assert code == 0
    assert out.startswith("SUPPORTED")
    report = json.loads((tmp_path / "report-recorded-npy/report.json").read_text())
    assert report["command"] == f"turnmark audit recorded.npy --probe-folder probes --claim {claim_folder.name}"
    assert report["suspect"]["format"] == "recorded"


@pytest.mark.parametrize(
    "options",
    [
        ("https://models.example/", "--probe-folder", "probes"),
        ("https://models.example/", "--arch", "tiny"),
        ("x.onnx", "--api", "openai"),
        ("x.onnx", "--transcript", "t"),
        ("x.npy", "--probe-folder", "probes", "--request-size", "8"),
        ("x.npy", "--probe-folder", "probes", "--stop-early"),
        ("x.npy", "--probe-folder", "missing"),
        ("http://models.example/",),
    ],
)
def test_options_that_do_not_fit_are_refused(options: tuple[str, ...], run: Run, claim_folder: Path) -> None:
    code, out, err = run("audit", *options, "--claim", claim_folder)
    assert (code, out) == (2, "")
    assert err.lower().count("error:") == 1
    assert "hint:" in err or "--help' for help" in err


def test_an_endpoints_report_is_reproduced_from_its_transcript(
    run: Run, claim_folder: Path, near: Noisy, tmp_path: Path
) -> None:
    """No party is asked: the answers are in the report's folder, and their digest is the suspect's."""
    with serving(near) as (server, url):
        assert run("audit", url, "--claim", claim_folder, "--api", "openai", "--api-model", "m", "--out", "r")[0] == 0
        session = len(server.requests)
        again = ("report", "reproduce", "r", "--claim", claim_folder, "--suspect", url)
        code, out, _ = run(*again)
        assert code == 0
        assert "reproduced: SUPPORTED" in out
        assert len(server.requests) == session
        code, _, err = run(*again, "--transcript", "nowhere")
        assert code == 6
        assert "this suspect is not the report's" in err
        assert len(server.requests) == session
    assert not Path("nowhere").exists()


def test_no_command_sends_a_token_in_the_clear_unless_told_to(
    run: Run, claim_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TURNMARK_TOKEN", "s3same")
    url = "HTTP://models.example/v1"
    extract = ("attack", "extract", url, "digits[:64]", "--surrogate-arch", "tiny", "--out", "o")
    for command in (("audit", url, "--claim", claim_folder), extract):
        code, _, err = run(*command)
        assert code == 2
        assert "in the clear" in error_line(err)
        assert "--allow-http" in err
    (tmp_path / "v.onnx").write_bytes(b"")
    code, _, err = run("attack", "extract", "v.onnx", "digits[:64]", "--allow-http", "--out", "o")
    assert code == 2
    assert "--allow-http is for the address of an endpoint" in err
