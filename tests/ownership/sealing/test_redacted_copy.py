"""Redacted copies of a claim: the same verdict by the same numbers, without the owner's private images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load, save
from support import independent_verifier
from support.claims import Sealed
from support.command import Run
from support.encoders import Noisy, as_suspect, encoder
from torch import nn

from ownership import audit
from ownership.auditing.probe_export import export_probes
from ownership.claims.claim import Claim
from ownership.claims.redaction import NAME, PRIVATE_PROBES, PRIVATE_SETS, REDACTABLE
from ownership.encoders.architectures import Encoder
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.canonical import canonical_json, sha256
from ownership.reports.claim_text import describe
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.sealing.create import attach, seal_claim, write_request
from ownership.sealing.disclosure import check_disclosure, disclose
from ownership.sealing.redacted_copy import write_redacted_copy
from ownership.sealing.verify import verify_claim
from ownership.verdict.records import AuditOptions
from ownership.verdict.results import Skip, SkipCode

INFERENCE = {"inference_gmm", "inference_loss", "inference_augmentation"}


@pytest.fixture(scope="module")
def redacted(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("redacted") / "redacted"
    write_redacted_copy(sealed.folder, out)
    return out


@pytest.fixture(scope="module")
def bare(claim_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("redacted") / "bare"
    write_redacted_copy(claim_folder, out)
    return out


def test_it_lacks_the_redacted_parts_and_nothing_else(sealed: Sealed, redacted: Path, claim: Claim) -> None:
    whole = {p.relative_to(sealed.folder).as_posix(): p.read_bytes() for p in sealed.folder.rglob("*") if p.is_file()}
    shown = {p.relative_to(redacted).as_posix(): p.read_bytes() for p in redacted.rglob("*") if p.is_file()}
    assert whole.keys() - shown.keys() == set(REDACTABLE)
    assert shown.keys() - whole.keys() == {NAME}
    assert {n for n in shown if n in whole and shown[n] != whole[n]} == {"seal/salts.json"}
    assert all((redacted / n).stat().st_mode & 0o077 == 0 for n in shown)
    salts = json.loads(whole["seal/salts.json"])["salts"]
    hidden = [salt for name, salt in salts.items() if name in REDACTABLE or name.startswith("private/")]
    assert len(hidden) == 103
    for data in shown.values():
        assert not [s for s in hidden if s.encode() in data or bytes.fromhex(s) in data]
        assert not [i for i in claim.probes["private"] if i.numpy().tobytes() in data]


def test_it_loads_and_names_what_is_redacted(sealed: Sealed, redacted: Path) -> None:
    loaded, whole = Claim.load(redacted), Claim.load(sealed.folder)
    assert loaded.sha256 == whole.sha256
    assert loaded.redaction.parts == REDACTABLE
    assert whole.redaction.parts == ()
    assert set(whole.probes) - set(loaded.probes) == set(PRIVATE_SETS)
    assert loaded.watermark is not None
    assert (loaded.watermark.key, loaded.projection_head) == (None, None)
    assert loaded.seal == whole.seal
    found = verify_claim(redacted, public_key=sealed.public, roots=sealed.roots, before=sealed.later)
    assert found.names == (
        "claim", "redacted", "files", "Merkle root", "signature", "key", "timestamp", "timestamp", "date",
    )  # fmt: skip
    assert PRIVATE_PROBES in found.details("redacted")[0]
    assert "the hashes of 103 redacted leaves" in found.details("Merkle root")[0]
    independent_verifier.verify(redacted, sealed.public)
    assert any("rotation watermark, the key is redacted" in line for line in describe(loaded))


@pytest.mark.parametrize("which", ["copy", "independent"])
def test_the_verdict_and_every_deciding_number_are_the_same(
    sealed: Sealed, redacted: Path, victim: Encoder, which: str
) -> None:
    of = Noisy(victim, 99, 0.002) if which == "copy" else encoder(77)
    session: list[int] = []
    whole = audit(Claim.load(sealed.folder), as_suspect(of))
    private = {i.numpy().tobytes() for i in Claim.load(sealed.folder).probes["private"]}

    class Watched(nn.Module):
        def forward(self, images: Any) -> Any:
            session.extend((255 * image[0]).round().byte().numpy().tobytes() in private for image in images)
            return of(images)

    part = audit(Claim.load(redacted), as_suspect(Watched()), AuditOptions(paper_tests=True))
    assert part.verdict is whole.verdict
    assert part.reasons == whole.reasons
    assert part.primary == whole.primary
    assert part.findings.interim_analyses == whole.findings.interim_analyses
    assert part.strength == whole.strength
    assert part.explanations == whole.explanations
    assert part.findings.predictor_check == whole.findings.predictor_check
    assert part.results == tuple(r for r in whole.results if r.family != "inference")
    assert set(part.findings.skipped) == INFERENCE
    assert set(part.findings.skipped.values()) == {Skip(code=SkipCode.REDACTED)}
    assert len(session) == part.findings.queries
    assert not any(session), "a private image was shown to the suspect"
    assert (whole.findings.queries or 0) > (part.findings.queries or 0)
    assert (part.claim.redaction, whole.claim.redaction) == (REDACTABLE, ())
    assert Report.from_dict(json.loads(json.dumps(part.to_dict()))) == part
    assert "a redacted claim: its owner withheld key.json" in render_html(part)
    early = [audit(Claim.load(f), as_suspect(of), AuditOptions(stop_early=True)) for f in (sealed.folder, redacted)]
    assert early[0].verdict is early[1].verdict
    assert early[0].primary == early[1].primary


def test_panel_files_and_probe_folders_need_no_private_images(redacted: Path, tmp_path: Path) -> None:
    loaded = Claim.load(redacted)
    models = [replace(as_suspect(encoder(10)), sha256=loaded.members[0].sha256)]
    report = audit(loaded, as_suspect(encoder(77)), models=models)
    assert report.findings.models_checked is not None
    assert report.findings.models_checked["m0"].recomputed
    count = export_probes(loaded, tmp_path / "probes")
    assert count >= sum(map(len, loaded.probes.values()))


def test_the_copy_of_an_unsealed_claim(bare: Path, claim_folder: Path) -> None:
    loaded = Claim.load(bare)
    assert loaded.seal is None
    assert json.loads((bare / NAME).read_bytes())["leaves"] is None
    report = audit(loaded, as_suspect(encoder(77)))
    assert report.primary == audit(Claim.load(claim_folder), as_suspect(encoder(77))).primary
    with pytest.raises(ClaimIntegrityError, match="no seal"):
        verify_claim(bare)


# tampering


def _tampered(redacted: Path, tmp_path: Path, change: Any) -> Path:
    copy = shutil.copytree(redacted, tmp_path / "copy")
    content = json.loads((copy / NAME).read_bytes())
    change(content)
    (copy / NAME).write_bytes(canonical_json(content))
    return copy


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(format_version=2),
        lambda c: c.update(claim_sha256="0" * 64),
        lambda c: c.update(extra=1),
        lambda c: c.pop("parts"),
        lambda c: c.update(parts=c["parts"][1:]),
        lambda c: c.update(parts=c["parts"][::-1]),
        lambda c: c.update(parts=[*c["parts"], "predictor.safetensors"]),
        lambda c: c.update(parts=[*c["parts"], "../x"]),
        lambda c: c.update(leaves=None),
        lambda c: c.update(leaves=[]),
        lambda c: c.update(leaves={}),
        lambda c: c["leaves"].pop("private/5"),
        lambda c: c["leaves"].pop("key.json"),
        lambda c: c["leaves"].update({"private/100": "00" * 32}),
        lambda c: c["leaves"].update({"private/5": c["leaves"]["private/6"]}),
        lambda c: c["leaves"].update({"private/5": "00" * 32}),
        lambda c: c["leaves"].update({"private/5": "00" * 31}),
        lambda c: c["leaves"].update({"private/5": c["leaves"]["private/5"].upper()}),
        lambda c: c["leaves"].update({"private/5": 5}),
        lambda c: c["leaves"].update({"claim.json": "00" * 32}),
        lambda c: c.clear(),
    ],
)
def test_a_tampered_list_is_refused(redacted: Path, tmp_path: Path, change: Any) -> None:
    with pytest.raises(ClaimIntegrityError, match=r"redacted\.json|do not lead to the sealed root") as e:
        Claim.load(_tampered(redacted, tmp_path, change))
    assert e.value.exit_code == 6
    with pytest.raises((independent_verifier.Bad, ValueError, TypeError)):
        independent_verifier.verify(tmp_path / "copy")


def test_a_tampered_list_of_an_unsealed_copy_is_refused(bare: Path, tmp_path: Path) -> None:
    for i, change in enumerate((lambda c: c.update(leaves={}), lambda c: c.update(parts=c["parts"][:1]))):
        with pytest.raises(ClaimIntegrityError, match=r"redacted\.json"):
            Claim.load(_tampered(bare, tmp_path / str(i), change))


@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.8, 0.999])
def test_one_flipped_byte_of_the_list_is_refused(redacted: Path, tmp_path: Path, at: float) -> None:
    copy = shutil.copytree(redacted, tmp_path / "copy")
    data = bytearray((copy / NAME).read_bytes())
    data[int(at * len(data))] ^= 1
    (copy / NAME).write_bytes(bytes(data))
    with pytest.raises(ClaimIntegrityError):
        Claim.load(copy)


def test_files_that_do_not_fit_the_list_are_refused(sealed: Sealed, redacted: Path, bare: Path, tmp_path: Path) -> None:
    def broken(name: str, source: Path = redacted) -> Path:
        return shutil.copytree(source, tmp_path / name)

    there = broken("there")
    shutil.copy(sealed.folder / "key.json", there)
    with pytest.raises(ClaimIntegrityError, match="is there, though"):
        Claim.load(there)
    gone = broken("gone")
    (gone / NAME).unlink()
    with pytest.raises(ClaimIntegrityError, match="is missing"):
        Claim.load(gone)
    less = broken("less")
    (less / "predictor.safetensors").unlink()
    with pytest.raises(ClaimIntegrityError, match="is missing"):
        Claim.load(less)
    unsealed = broken("unsealed")
    shutil.rmtree(unsealed / "seal")
    with pytest.raises(ClaimIntegrityError, match=r"redacted\.json is not that"):
        Claim.load(unsealed)
    other = broken("other")
    shutil.copy(bare / NAME, other)
    with pytest.raises(ClaimIntegrityError, match=r"redacted\.json is not that"):
        Claim.load(other)
    link = broken("link")
    (link / NAME).rename(tmp_path / "elsewhere")
    (link / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClaimIntegrityError, match="is a link"):
        Claim.load(link)
    salted = broken("salted")
    shutil.copy(sealed.folder / "seal/salts.json", salted / "seal/salts.json")
    with pytest.raises(ClaimIntegrityError, match="does not name what the claim holds"):
        Claim.load(salted)
    extra = broken("extra")
    (extra / "notes.txt").write_text("x")
    with pytest.raises(ClaimIntegrityError, match=r"notes\.txt is not covered"):
        verify_claim(extra)


# other operations on a redacted copy


def test_sealing_and_disclosing(sealed: Sealed, redacted: Path, bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ClaimError, match="a redacted claim cannot be sealed") as e:
        seal_claim(bare, sealed.key)
    assert e.value.exit_code == 2
    assert not (bare / "seal").exists()
    before = {p: p.read_bytes() for p in redacted.rglob("*.*")}
    again = seal_claim(redacted, sealed.key)  # sealed with this key already, as its whole is
    assert {p: p.read_bytes() for p in redacted.rglob("*.*")} == before
    assert again == Claim.load(redacted).seal
    shown = check_disclosure(disclose(redacted, ["predictor.safetensors"], data=True), public_key=sealed.public)
    assert shown.parts == {"predictor.safetensors": (redacted / "predictor.safetensors").read_bytes()}
    for name in ("key.json", "private/3"):
        with pytest.raises(ClaimError, match="is redacted from this copy"):
            disclose(redacted, [name])
    with pytest.raises(ClaimError, match="no part"):
        disclose(redacted, ["private/100"])


def test_a_redacted_copy_can_be_timestamped_later(sealed: Sealed, redacted: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(redacted, tmp_path / "copy")
    shutil.rmtree(copy / "seal/timestamps")
    write_request(copy, tmp_path / "a.tsq")
    attach(copy, sealed.first.reply(tmp_path / "a.tsq", tmp_path / "a.tsr").read_bytes())
    assert len(verify_claim(copy).timestamps) == 1
    assert len(verify_claim(copy).checks) == 7


def test_a_redacted_copy_is_neither_redacted_again_nor_written_as_a_claim(
    sealed: Sealed, redacted: Path, tmp_path: Path
) -> None:
    with pytest.raises(ClaimError, match="a redacted copy of a claim already"):
        write_redacted_copy(redacted, tmp_path / "again")
    with pytest.raises(ClaimError, match="cannot be written as a claim"):
        Claim.load(redacted).save(tmp_path / "saved")
    with pytest.raises(ClaimError, match="exists already"):
        write_redacted_copy(sealed.folder, redacted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("swap", ["private among probes", "probes among private"])
def test_images_in_the_wrong_part_are_refused(claim_folder: Path, tmp_path: Path, swap: str) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    probes, private = (load((copy / n).read_bytes()) for n in ("probes.safetensors", PRIVATE_PROBES))
    if swap == "private among probes":
        probes["private"] = private["private"]
    else:
        private["rotated"] = probes.pop("rotated")
    content = json.loads((copy / "claim.json").read_bytes())
    del content["content_sha256"]
    for name, tensors in (("probes.safetensors", probes), (PRIVATE_PROBES, private)):
        (copy / name).write_bytes(save(tensors))
        content["parts"][name]["sha256"] = sha256((copy / name).read_bytes())
    content["content_sha256"] = sha256(canonical_json(content))
    (copy / "claim.json").write_bytes(canonical_json(content))
    with pytest.raises(ClaimError, match="malformed"):
        Claim.load(copy)


def test_the_command(run: Run, sealed: Sealed) -> None:
    code, out, _ = run("claim", "redact", sealed.folder, "--out", "redacted")
    assert code == 0
    assert "without key.json, private_probes.safetensors, projection_head.safetensors" in out
    code, out, _ = run("claim", "verify", "redacted", "--public-key", sealed.public)
    assert code == 0
    assert "redacted     key.json, private_probes.safetensors" in out
    assert run("claim", "show", "redacted")[0] == 0
    code, _, err = run("claim", "redact", "redacted", "--out", "again")
    assert code == 2
    assert "a redacted copy of a claim already" in err
    Path("redacted", NAME).write_bytes(b"{}\n")
    assert run("claim", "verify", "redacted")[0] == 6
