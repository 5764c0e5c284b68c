"""The report as PDF: a real browser prints it, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support.command import Run
from support.encoders import encoder

from ownership.errors import OwnershipError
from ownership.reports import pdf
from ownership.reports.html import SECTIONS
from ownership.reports.pdf import find_browser, write_pdf
from watermark_training.encoder_files import weights_bytes

needs_browser = pytest.mark.skipif(
    not any(map(shutil.which, pdf.BROWSERS)), reason="no Chromium or Chrome on this machine"
)
needs_poppler = pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext on this machine")


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.heavy
@needs_browser
@needs_poppler
def test_an_audit_prints_its_report(run: Run, claim_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "suspect.safetensors").write_bytes(weights_bytes(encoder(77), "tiny"))
    code, out, err = run("audit", "suspect.safetensors", "--claim", claim_folder, "--out", "r", "--pdf")
    assert code == 1, out + err
    assert (tmp_path / "r/report.pdf").read_bytes().startswith(b"%PDF-")
    text = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "r/report.pdf", "-"], check=True, capture_output=True, text=True
    ).stdout
    pages = text.split("\f")[:-1]
    assert 8 <= len(pages) <= 20
    for i, page in enumerate(pages):
        assert f"Page {i + 1} of {len(pages)}" in page
        assert len(page.split()) > 30, "an empty page"
    assert "NOT SUPPORTED" in pages[0]
    for i, (_, title) in enumerate(SECTIONS):
        assert f"{i + 1}. {title}" in text
    assert "suspect.safetensors" in pages[0]
    assert "file://" not in text


@needs_browser
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "a page.html").write_text("<!DOCTYPE html><title>x</title><p>Prüfung")
    write_pdf(tmp_path / "a page.html", tmp_path / "new/x.pdf")
    assert (tmp_path / "new/x.pdf").stat().st_size > 500
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.pdf"]
    assert not list((tmp_path / "tmp").iterdir())


def test_without_a_browser_the_way_out_is_said(
    run: Run, claim_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pdf, "BROWSERS", ("no-such-browser",))
    with pytest.raises(OwnershipError, match="no Chromium or Chrome") as e:
        find_browser()
    assert "report.html" in e.value.hint
    (tmp_path / "suspect.safetensors").write_bytes(b"not read")
    code, _, err = run("audit", "suspect.safetensors", "--claim", claim_folder, "--out", "r", "--pdf")
    assert code == 2
    assert "no Chromium or Chrome" in err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [("exit 3", "could not print"), ("exit 0", "could not print"), ("echo x > $OUT", "wrote no PDF"),
     ("sleep 60 & sleep 60", "did not print")],
)  # fmt: skip
def test_a_browser_that_fails(text: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_out = 'for a in "$@"; do case $a in --print-to-pdf=*) OUT=${a#--print-to-pdf=};; esac; done'
    browser = script(tmp_path, "browser", f"echo $$ > {tmp_path}/pid\n{find_out}\n{text}")
    monkeypatch.setattr(pdf, "BROWSERS", (str(browser),))
    (tmp_path / "x.html").write_text("x")
    start = time.monotonic()
    with pytest.raises(OwnershipError, match=match):
        write_pdf(tmp_path / "x.html", tmp_path / "x.pdf", seconds=2)
    assert time.monotonic() - start < 20
    assert not (tmp_path / "x.pdf").exists()
    assert gone(int((tmp_path / "pid").read_text())), "its helpers are still there"


def gone(group: int) -> bool:
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_the_browser_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = script(tmp_path, "browser", f"env > {tmp_path}/env")
    monkeypatch.setattr(pdf, "BROWSERS", (str(browser),))
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "Geheimnis")
    (tmp_path / "x.html").write_text("x")
    with pytest.raises(OwnershipError):
        write_pdf(tmp_path / "x.html", tmp_path / "x.pdf")
    assert "Geheimnis" not in (tmp_path / "env").read_text()
