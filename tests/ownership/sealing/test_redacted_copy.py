"""The auditor's view of a claim: the same verdict by the same numbers, without the owner's private images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Noisy, Run, Sealed, encoder
from safetensors.torch import load, save
from support import independent_verifier
from torch import nn

from ownership import audit
from ownership.auditing.probe_export import export_probes
from ownership.claims.claim import Claim
from ownership.claims.describe import describe
from ownership.claims.redaction import NAME, PRIVATE_PROBES, PRIVATE_SETS, REDACTABLE
from ownership.encoders.architectures import Encoder
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.canonical import canonical_json, sha256
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.sealing.create import attach, seal_claim, write_request
from ownership.sealing.disclosure import check_disclosure, disclose
from ownership.sealing.encryption import decrypt_claim, encrypt_claim
from ownership.sealing.redacted_copy import write_redacted_copy
from ownership.sealing.verify import verify_claim
from ownership.suspects.suspect import Suspect

INFERENCE = {"inference_gmm", "inference_loss", "inference_augmentation"}


def suspect(of: nn.Module) -> Suspect:
    return Suspect(name="s", format="x", sha256="0" * 64, size=1, architecture=None, encoder=of.eval())


@pytest.fixture(scope="module")
def view(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("view") / "view"
    write_redacted_copy(sealed.folder, out)
    return out


@pytest.fixture(scope="module")
def bare(claim_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("view") / "bare"
    write_redacted_copy(claim_folder, out)
    return out


def test_it_lacks_what_is_withheld_and_nothing_else(sealed: Sealed, view: Path, claim: Claim) -> None:
    whole = {p.relative_to(sealed.folder).as_posix(): p.read_bytes() for p in sealed.folder.rglob("*") if p.is_file()}
    shown = {p.relative_to(view).as_posix(): p.read_bytes() for p in view.rglob("*") if p.is_file()}
    assert whole.keys() - shown.keys() == set(REDACTABLE)
    assert shown.keys() - whole.keys() == {NAME}
    assert {n for n in shown if n in whole and shown[n] != whole[n]} == {"seal/salts.json"}
    assert all((view / n).stat().st_mode & 0o077 == 0 for n in shown)
    salts = json.loads(whole["seal/salts.json"])["salts"]
    hidden = [salt for name, salt in salts.items() if name in REDACTABLE or name.startswith("private/")]
    assert len(hidden) == 103
    for data in shown.values():
        assert not [s for s in hidden if s.encode() in data or bytes.fromhex(s) in data]
        assert not [i for i in claim.probes["private"] if i.numpy().tobytes() in data]


def test_it_loads_and_says_what_is_withheld(sealed: Sealed, view: Path) -> None:
    loaded, whole = Claim.load(view), Claim.load(sealed.folder)
    assert loaded.sha256 == whole.sha256
    assert loaded.redaction.parts == REDACTABLE
    assert whole.redaction.parts == ()
    assert set(whole.probes) - set(loaded.probes) == set(PRIVATE_SETS)
    assert (loaded.key, loaded.projection_head) == (None, None)
    assert loaded.predictor is not None
    assert loaded.seal == whole.seal
    lines = list(verify_claim(view, public_key=sealed.public, roots=sealed.roots, before=sealed.later))
    assert [line.split()[0] for line in lines] == [
        "claim", "redaction", "files", "signature", "key", "Merkle", "timestamp", "timestamp", "date",
    ]  # fmt: skip
    assert PRIVATE_PROBES in lines[1]
    assert "with 103 leaves that are withheld" in lines[5]
    independent_verifier.verify(view, sealed.public)
    assert any("yes, its key is withheld" in line for line in describe(loaded))


@pytest.mark.parametrize("which", ["copy", "stranger"])
def test_the_verdict_and_every_deciding_number_are_the_same(
    sealed: Sealed, view: Path, victim: Encoder, which: str
) -> None:
    of = Noisy(victim, 99, 0.002) if which == "copy" else encoder(77)
    session: list[int] = []
    whole = audit(Claim.load(sealed.folder), suspect(of))
    private = {i.numpy().tobytes() for i in Claim.load(sealed.folder).probes["private"]}

    class Watched(nn.Module):
        def forward(self, images: Any) -> Any:
            session.extend((255 * image[0]).round().byte().numpy().tobytes() in private for image in images)
            return of(images)

    part = audit(Claim.load(view), suspect(Watched()), paper=True)
    assert part.verdict is whole.verdict
    assert part.reasons == whole.reasons
    assert part.primary == whole.primary
    assert part.interim_analyses == whole.interim_analyses
    assert part.strength == whole.strength
    assert part.explanations == whole.explanations
    assert part.predictor_check == whole.predictor_check
    assert part.results == tuple(r for r in whole.results if r.family != "inference")
    assert set(part.skipped) == INFERENCE
    assert all("withheld from this view" in why for why in part.skipped.values())
    assert len(session) == part.queries
    assert not any(session), "a private image was shown to the suspect"
    assert (whole.queries or 0) > (part.queries or 0)
    assert (part.claim["redaction"], whole.claim["redaction"]) == (list(REDACTABLE), [])
    assert Report.from_dict(json.loads(json.dumps(part.to_dict()))) == part
    assert "a view of the claim: its owner withheld key.json" in render_html(part)
    early = [audit(Claim.load(f), suspect(of), stop_early=True) for f in (sealed.folder, view)]
    assert early[0].verdict is early[1].verdict
    assert early[0].primary == early[1].primary


def test_panel_files_and_probe_folders_need_no_private_images(view: Path, tmp_path: Path) -> None:
    loaded = Claim.load(view)
    models = [replace(suspect(encoder(10)), sha256=loaded.members[0].sha256)]
    report = audit(loaded, suspect(encoder(77)), panel_models=models)
    assert report.panel_checked is not None
    assert report.panel_checked["m0"] == "verified"
    count = export_probes(loaded, tmp_path / "probes")
    assert count >= sum(map(len, loaded.probes.values()))


def test_an_unsealed_claims_view(bare: Path, claim_folder: Path) -> None:
    loaded = Claim.load(bare)
    assert loaded.seal is None
    assert json.loads((bare / NAME).read_bytes())["leaves"] is None
    report = audit(loaded, suspect(encoder(77)))
    assert report.primary == audit(Claim.load(claim_folder), suspect(encoder(77))).primary
    with pytest.raises(ClaimIntegrityError, match="no seal"):
        list(verify_claim(bare))


# tampering


def _tampered(view: Path, tmp_path: Path, change: Any) -> Path:
    copy = shutil.copytree(view, tmp_path / "copy")
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
def test_a_tampered_list_is_refused(view: Path, tmp_path: Path, change: Any) -> None:
    with pytest.raises(ClaimIntegrityError, match=r"redacted\.json|do not lead to the sealed root") as e:
        Claim.load(_tampered(view, tmp_path, change))
    assert e.value.exit_code == 6
    with pytest.raises((independent_verifier.Bad, ValueError, TypeError)):
        independent_verifier.verify(tmp_path / "copy")


def test_a_tampered_list_of_an_unsealed_view_is_refused(bare: Path, tmp_path: Path) -> None:
    for i, change in enumerate((lambda c: c.update(leaves={}), lambda c: c.update(parts=c["parts"][:1]))):
        with pytest.raises(ClaimIntegrityError, match=r"redacted\.json"):
            Claim.load(_tampered(bare, tmp_path / str(i), change))


@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.8, 0.999])
def test_one_flipped_byte_of_the_list_is_refused(view: Path, tmp_path: Path, at: float) -> None:
    copy = shutil.copytree(view, tmp_path / "copy")
    data = bytearray((copy / NAME).read_bytes())
    data[int(at * len(data))] ^= 1
    (copy / NAME).write_bytes(bytes(data))
    with pytest.raises(ClaimIntegrityError):
        Claim.load(copy)


def test_files_that_do_not_fit_the_list_are_refused(sealed: Sealed, view: Path, bare: Path, tmp_path: Path) -> None:
    def broken(name: str, source: Path = view) -> Path:
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
        list(verify_claim(extra))


# what else can be done with a view


def test_sealing_encrypting_disclosing(sealed: Sealed, view: Path, bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ClaimError, match="a view of a claim cannot be sealed") as e:
        seal_claim(bare, sealed.key)
    assert e.value.exit_code == 2
    assert not (bare / "seal").exists()
    again, new = seal_claim(view, sealed.key)  # sealed with this key already, as its whole is
    assert not new
    assert again == Claim.load(view).seal
    encrypt_claim(view, tmp_path / "view.age", passphrase="x")
    opened = decrypt_claim(tmp_path / "view.age", tmp_path / "opened", passphrase=lambda: "x")
    assert opened.redaction == Claim.load(view).redaction
    lines = list(check_disclosure(disclose(view, ["predictor.safetensors"], data=True), public_key=sealed.public))
    assert any(line.startswith("part         predictor") for line in lines)
    for name in ("key.json", "private/3"):
        with pytest.raises(ClaimError, match="is withheld from this view"):
            disclose(view, [name])
    with pytest.raises(ClaimError, match="no part"):
        disclose(view, ["private/100"])


def test_a_view_can_be_stamped_later(sealed: Sealed, view: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(view, tmp_path / "copy")
    shutil.rmtree(copy / "seal/timestamps")
    write_request(copy, tmp_path / "a.tsq")
    attach(copy, sealed.first.reply(tmp_path / "a.tsq", tmp_path / "a.tsr").read_bytes())
    assert len(list(verify_claim(copy))) == 7


def test_a_view_is_never_made_of_one_or_written_as_a_claim(sealed: Sealed, view: Path, tmp_path: Path) -> None:
    with pytest.raises(ClaimError, match="a view of a claim already"):
        write_redacted_copy(view, tmp_path / "again")
    with pytest.raises(ClaimError, match="cannot be written as a claim"):
        Claim.load(view).save(tmp_path / "saved")
    with pytest.raises(ClaimError, match="exists already"):
        write_redacted_copy(sealed.folder, view)
    assert not list(tmp_path.iterdir())


# claims of before


def as_format_2(folder: Path) -> None:
    """What a claim of format 2 was: private images among the other probes."""
    probes, private = folder / "probes.safetensors", folder / PRIVATE_PROBES
    data = save({**load(probes.read_bytes()), **load(private.read_bytes())})
    private.unlink()
    probes.write_bytes(data)
    content = json.loads((folder / "claim.json").read_bytes())
    del content["parts"][PRIVATE_PROBES], content["content_sha256"]
    content["parts"][probes.name] = {"sha256": sha256(data), "bytes": len(data)}
    content["format_version"] = 2
    content["content_sha256"] = sha256(canonical_json(content))
    (folder / "claim.json").write_bytes(canonical_json(content))


def test_claims_of_format_2_are_read_sealed_and_disclosed(sealed: Sealed, claim_folder: Path, tmp_path: Path) -> None:
    old = shutil.copytree(claim_folder, tmp_path / "old")
    as_format_2(old)
    loaded, whole = Claim.load(old), Claim.load(claim_folder)
    assert loaded.scores == whole.scores
    assert set(loaded.probes) == set(whole.probes)
    for name, images in whole.probes.items():
        np.testing.assert_array_equal(loaded.probes[name], images)
    seal, _ = seal_claim(old, sealed.key)
    assert seal.leaves == 1 + len(json.loads((old / "claim.json").read_bytes())["parts"]) + 100
    assert len(list(verify_claim(old, public_key=sealed.public))) == 6
    list(check_disclosure(disclose(old, ["private/7"], data=True)))
    independent_verifier.verify(old, sealed.public)
    a, b = (audit(c, suspect(encoder(77))) for c in (loaded, whole))
    assert a.results == b.results
    with pytest.raises(ClaimError, match="does not keep private images apart"):
        write_redacted_copy(old, tmp_path / "view")


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
    code, out, _ = run("claim", "view", sealed.folder, "--out", "view")
    assert code == 0
    assert "withheld: key.json, private_probes.safetensors, projection_head.safetensors" in out
    code, out, _ = run("claim", "verify", "view", "--public-key", sealed.public)
    assert code == 0
    assert "withheld     key.json, private_probes.safetensors" in out
    assert run("claim", "show", "view")[0] == 0
    code, _, err = run("claim", "view", "view", "--out", "again")
    assert code == 2
    assert "a view of a claim already" in err
    Path("view", NAME).write_bytes(b"{}\n")
    assert run("claim", "verify", "view")[0] == 6
