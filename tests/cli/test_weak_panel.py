"""A panel that is weaker than the victim, and an audit that computes a claim's representations again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.command import Run, error_line
from support.encoders import encoder
from support.job import Job

from watermark_training.encoder_files import weights_bytes


def build_claim_of(job: Job) -> tuple[object, ...]:
    images = ("--private", "digits[:300]", "--public", "digits[300:1000]")
    cheap = ("--reference-epochs", 1, "--device", "cpu")
    return ("claim", "build", job.folder / "models/victim", *images, *cheap, "--out", "claim")


def untrained_panel(folder: Path) -> list[object]:
    """Return options for five encoders that were not trained, declared plain."""
    options: list[object] = []
    for i in range(5):
        (folder / f"untrained_{i}.safetensors").write_bytes(weights_bytes(encoder(60 + i), "tiny"))
        options += ["--panel", f"plain:untrained_{i}.safetensors"]
    return options


def test_a_weak_panel_is_said_to_its_owner_and_has_no_power(run: Run, job: Job, tmp_path: Path) -> None:
    """Untrained encoders declared plain, beside the members that were trained as the demo's panel is."""
    panel = untrained_panel(tmp_path)
    panel += [part for i in range(5) for part in ("--panel", job.folder / f"models/panel_watermarked_{i}")]
    code, out, err = run(*build_claim_of(job), *panel)
    assert code == 0, err
    (said,) = [line for line in out.splitlines() if "weak stratum" in line]
    assert re.search(r"weak stratum plain: [012] of 5 members", said)
    assert "turnmark panel" in said
    assert "primary tests of two families must reject" in said
    code, out, _ = run("claim", "power", "claim", "--json", "--n-probes", 100)
    assert code == 0
    found = json.loads(out)
    assert found["weak_strata"] == ["plain"]
    assert {p["stratum"] for rows in found["primary_tests"].values() for p in rows} == {"watermarked"}
    code, _, err = run("claim", "power", "claim")
    assert code == 0
    assert "weak stratum plain" in err


@pytest.mark.slow
def test_a_panel_that_is_weak_altogether_has_no_power(run: Run, job: Job, tmp_path: Path) -> None:
    code, out, err = run(*build_claim_of(job), *untrained_panel(tmp_path), "--keep-references", "models/references")
    assert code == 0, err
    assert "no small and no public members: with this panel no audit can support anything" in out
    code, out, _ = run("claim", "power", "claim")
    assert code == 0
    assert "no test of the panel has power" in out
    shutil.copy(job.folder / "models/victim/encoder.safetensors", "models/any_name.safetensors")
    code, out, err = run("audit", "untrained_0.safetensors", "--claim", "claim", "--models", "models")
    assert code == 1, err
    references = ", ".join(sorted(p.stem for p in Path("models/references").iterdir()))
    assert f"computed again from files: {references}, victim; its owner's word" in " ".join(out.split())
    code, _, err = run("audit", "untrained_0.safetensors", "--claim", "claim", "--models", job.folder / "suspects")
    assert code == 2
    assert "holds no file of an encoder of the claim" in error_line(err)
