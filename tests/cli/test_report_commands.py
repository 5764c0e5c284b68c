"""`turnmark report sign`, `attach`, `verify`, `reproduce`: from an audit to a signed report that others re-run."""

from __future__ import annotations

import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from support.claims import Sealed
from support.command import Run, turnmark
from support.encoders import encoder
from support.reports import changed as altered

from ownership.auditing.reproduce import load_options
from ownership.claims.claim import Claim
from ownership.errors import ReportError
from ownership.io.canonical import sha256
from ownership.io.files import read_json, write_json
from ownership.reports.report import Report
from ownership.suspects.formats.model_file import LoadOptions
from ownership.verdict.records import AuditOptions
from watermark_training.encoder_files import weights_bytes

BRINGS = ("--auditor-panel", "own", "--models", "models")


def bring(tmp_path: Path) -> None:
    """Write a suspect, an auditor's own encoder, and a folder with two of the panel's files and one of no encoder."""
    files = {"suspect": 3, "own/mine": 40, "models/another": 41} | {f"models/m{i}/encoder": 10 + i for i in (2, 7)}
    for name, seed in files.items():
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(weights_bytes(encoder(seed), "tiny"))
    (tmp_path / "own/mine.txt").write_text("trained at home")


@pytest.fixture
def brought(tmp_path: Path) -> None:
    """What `bring` writes, in the folder where commands run."""
    bring(tmp_path)


@pytest.fixture(scope="module")
def audit_once(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what was brought and the report `r` made with it."""
    folder = tmp_path_factory.mktemp("audited")
    bring(folder)
    command = ("audit", "suspect.safetensors", "--claim", sealed.folder, "--paper-tests", "--out", "r", *BRINGS)
    assert turnmark(folder, *command)[0] == 1
    return folder


@pytest.fixture
def audited(audit_once: Path, tmp_path: Path) -> None:
    """A copy of that folder, where commands run."""
    shutil.copytree(audit_once, tmp_path, dirs_exist_ok=True)


def test_from_audit_to_a_signed_report(run: Run, sealed: Sealed, audited: None, tmp_path: Path) -> None:
    numbers = Path("r/report.json").read_bytes()
    code, out, _ = run("report", "verify", "r")
    assert code == 0
    assert out.splitlines()[-1].startswith("signature    UNSIGNED: ")

    assert run("keygen", "auditor.key")[0] == 0
    custody = ("claim: from Jane Roe, 2026-05-01", "suspect: from the court, 2026-05-02T10:00:00+02:00, by John Doe",
               "suspect: from John Doe, 2026-05-03", "model: from Jane Roe, 2026-05-01")  # fmt: skip
    stated = [word for text in custody for word in ("--received", text)]
    signing = ("report", "sign", "r", "--signing-key", "auditor.key", "--auditor", "Ada Lovelace", *stated)
    code, out, err = run(*signing, "--request", "r.tsq")
    assert code == 0
    assert out.startswith("signed: r\nkey ")
    key = out.splitlines()[1].removeprefix("key ")
    assert "does not prove when" in err
    assert run(*signing)[1].startswith("already signed with this key, and nothing changed")
    code, _, err = run(*signing, "--received", "auditor: from me, 2026-05-01")
    assert code == 2
    assert "another chain of custody" in err
    assert Path("r/report.json").read_bytes() == numbers  # no date in it
    page = Path("r/report.html").read_text()
    key = re.search(r"fingerprint (\w+)", run("keygen", "other.key")[1])
    assert key is not None
    for shown in (
        "Chain of custody",
        "Ada Lovelace",
        "from the court, 2026-05-02T10:00:00+02:00, by John Doe; from John",
    ):
        assert shown in page

    code, _, err = run("audit", "suspect.safetensors", "--claim", sealed.folder, "--out", "r")
    assert code == 2
    assert "r holds a signed report" in err

    sealed.first.reply(tmp_path / "r.tsq", tmp_path / "r.tsr")
    assert run("report", "attach", "r", "r.tsr", "--roots", sealed.second.roots)[0] == 6
    code, out, _ = run("report", "attach", "r", "r.tsr", "--roots", sealed.first.roots)
    assert code == 0
    assert "by CN=First authority: it covers this seal; its authority chains to a root you trust" in out
    whole = ("--public-key", "auditor.key.pub", "--roots", sealed.first.roots)
    code, out, _ = run("report", "verify", "r", *whole, "--before", "2100-01-01")
    assert code == 0
    said = out.splitlines()
    digests = {"claim": Claim.load(sealed.folder).sha256, "suspect": sha256(Path("suspect.safetensors").read_bytes())}
    for what, digest in digests.items():
        assert any(line.startswith(f"custody      {what} (SHA-256 {digest[:16]}…): from ") for line in said)
    assert sum(line.startswith("custody      model m") for line in said) == 2
    assert "custody      auditor mine.safetensors" in out
    assert "not stated from whom" in out
    assert [line.split()[0] for line in said if not line.startswith("custody")] == [
        "report", "page", "signed", "signature", "key", "timestamp", "date",
    ]  # fmt: skip
    assert run("report", "verify", "r", *whole, "--before", "2020-01-01")[0] == 6
    assert run("report", "verify", "r", "--before", "2020-01-01")[0] == 2
    code, _, err = run("report", "verify", "r", "--public-key", "other.key.pub")
    assert code == 6
    assert "not with the auditor's" in err


def test_a_report_is_reproduced_with_what_was_brought_and_without(run: Run, sealed: Sealed, audited: None) -> None:
    again = ("report", "reproduce", "r", "--claim", sealed.folder, "--suspect", "suspect.safetensors")
    code, out, _ = run(*again, *BRINGS)
    assert code == 0
    assert "reproduced: NOT_SUPPORTED" in out
    assert "not computed again" not in out
    code, out, _ = run(*again)
    assert code == 0
    assert "--auditor-panel was not given" in out
    assert "--models was not given" in out


def test_what_is_not_reproduced_is_named(run: Run, sealed: Sealed, brought: None, tmp_path: Path) -> None:
    run("audit", "suspect.safetensors", "--claim", sealed.folder, "--out", "r")
    on = ("--claim", sealed.folder, "--suspect", "suspect.safetensors")
    report = Report.load(Path("r/report.json"))
    changed = [replace(r, value=r.value + 0.01) if r.name == "cka" else r for r in report.results]
    replace(altered(report, results=tuple(changed)), versions={**report.versions, "torch": "0.1"}).save(
        Path("other.json")
    )
    code, out, err = run(
        "report", "reproduce", "other.json", "--claim", sealed.folder, "--suspect", "suspect.safetensors"
    )
    assert code == 6
    assert "not reproduced: " in err
    assert "cka value" in err
    assert re.search(r"^differs: cka value 0\.\d+, repeated 0\.\d+$", out, flags=re.M)
    assert "other version: torch 0.1, now " in out
    assert re.search(r"CKA.* NO *$", out, flags=re.M)
    assert not re.search(r"Partial.* NO *$", out, flags=re.M)
    loose = ("--tolerance", "0.1")
    only = run(
        "report", "reproduce", "other.json", "--claim", sealed.folder, "--suspect", "suspect.safetensors", *loose
    )
    assert "cka value" not in only[1]

    code, _, err = run("report", "reproduce", "r", "--claim", sealed.folder, "--suspect", "own/mine.safetensors")
    assert code == 6
    assert "this suspect is not the report's" in err
    content = read_json(Path("r/report.json"), ReportError, "report")
    write_json(Path("third.json"), {**content, "claim": {**content["claim"], "sha256": "0" * 64}})
    code, _, err = run(
        "report", "reproduce", "third.json", "--claim", sealed.folder, "--suspect", "suspect.safetensors"
    )
    assert code == 6
    assert "this claim is not the report's" in err
    code, _, _ = run("report", "reproduce", "nowhere", *on)
    assert code == 2


@pytest.mark.parametrize(
    "options",
    [
        ("--stop-early",),
        ("--preprocess", "try"),
        ("--preprocess", "bgr+imagenet", "--paper-tests"),
        ("--output-kind", "logits"),
        ("--arch", "tiny"),
    ],
    ids=" ".join,
)
def test_an_audit_of_any_kind_is_repeated_as_it_was(
    run: Run, claim_folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "s p.safetensors").write_bytes(weights_bytes(encoder(1), "tiny"))  # the victim itself
    run("audit", "s p.safetensors", "--claim", claim_folder, "--out", "r", *options)
    code, out, err = run(
        "report", "reproduce", "r/report.json", "--claim", claim_folder, "--suspect", "s p.safetensors"
    )
    assert code == 0, err
    assert "reproduced: " in out


def test_recorded_rows_are_reproduced(run: Run, claim_folder: Path, tmp_path: Path) -> None:
    import numpy as np

    from ownership.encoders.images import as_input
    from watermark_training.data import load_data

    run("claim", "probes", claim_folder, "--out", "probes")
    images = load_data("probes").images
    rows = encoder(3)(as_input(images)).detach().numpy()
    np.save("rows.npy", rows)
    code, _, err = run("audit", "rows.npy", "--probe-folder", "probes", "--claim", claim_folder, "--out", "r")
    assert code in (0, 1), err
    again = ("report", "reproduce", "r", "--claim", claim_folder, "--suspect", "rows.npy")
    assert run(*again, "--probe-folder", "probes")[0] == 0
    np.save("rows.npy", rows + 1)
    assert run(*again, "--probe-folder", "probes")[0] == 6


def test_a_report_gives_a_suspect_no_permission() -> None:
    """The options of a report say how a suspect is loaded, and never allow it to run code or to read other files."""
    recorded = AuditOptions(paper_tests=True, pooling="mean", arch="tiny")
    assert load_options(recorded, LoadOptions()) == LoadOptions(pooling="mean", arch="tiny")
    given = LoadOptions(output="h", arch="resnet18", allow_torchscript=True)
    assert load_options(recorded, given) == replace(given, pooling="mean")
    assert not {"external_data", "allow_torchscript"} & {f.name for f in fields(AuditOptions)}
