"""Numbers of a report with a key, of its claim's plan and of its key folder are changed: each change is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.encoders import Noisy, as_suspect, encoder, member
from support.keys import ONE_LOOK, claimed, rewritten
from torch import Tensor

from ownership import audit
from ownership.auditing.comparison import compare
from ownership.claims.claim import Claim
from ownership.claims.record import NamedEncoder
from ownership.errors import ClaimError, OwnershipError, ReportError
from ownership.io.canonical import base64_text, canonical_json
from ownership.keyed.drawn import Drawn
from ownership.keyed.pool import KeyMaterial
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.verdict.results import AuditorEncoder


@pytest.fixture(scope="module")
def honest(material: KeyMaterial, pool: Tensor) -> Report:
    references = [NamedEncoder(member("reference_a", "reference"), Noisy(encoder(1), 5, 0.002))]
    plan = replace(ONE_LOOK, interim_queries=(250,), interim_alpha_shares=(0.2,))
    return audit(claimed(encoder(1), material, pool, plan=plan, references=references), as_suspect(encoder(50)))


def forged_numbers(stored: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    for name, place in (("key", ("key",)), ("interim", ("interim_analyses", 0, "key"))):
        for field, value in (("exceeding", 0), ("exceeding", -1), ("exceeding", 10**6), ("decoys", 10**6),
                             ("decoys", -1), ("keys_tried", 7), ("statistic", 1e9), ("statistic", 1e308),
                             ("histogram", []), ("edges", []), ("references", {}), ("victim", -3)):  # fmt: skip
            yield f"{name} {field} {value}", (*place, field), value
        yield f"{name} z", (*place, "maps", "content", "z"), 1e308
        yield f"{name} nan", (*place, "maps", "content", "r_squared"), float("nan")
    yield "more alpha for an interim analysis", ("interim_analyses", 0, "key_alpha"), 0.9
    yield "the same for the panel's", ("interim_analyses", 0, "alpha"), 0.9
    yield "an unplanned interim analysis", ("interim_analyses", 0, "queries"), 251
    yield "a claim without its key", ("claim", "key"), None
    yield "fewer keys tried in the claim", ("claim", "key", "keys_tried"), 0
    yield "more probes than the pool", ("claim", "key", "probes"), 10**12
    for value in (5e-324, 1e308, float("inf"), 0, -1):
        yield f"key_alpha {value}", ("plan", "key_alpha"), value


def rederived(stored: dict[str, Any]) -> dict[str, Any]:
    """Redo what follows from the counts, as a careful forger does."""
    for key, alpha in [(stored["key"], stored["plan"]["key_alpha"] * 0.8)] + [
        (x["key"], x["key_alpha"]) for x in stored["interim_analyses"]
    ]:
        key["pvalue"] = (1 + key["exceeding"]) / (1 + key["decoys"]) if key["decoys"] != -1 else 1.0
        key["adjusted_pvalue"] = min(1.0, key["pvalue"] * key["keys_tried"])
        key["alpha"], key["rejects"] = alpha, key["adjusted_pvalue"] <= alpha
    return stored


def test_numbers_of_a_key_test_that_contradict_each_other_are_refused(honest: Report) -> None:
    whole = json.loads(canonical_json(honest.to_dict()))
    assert Report.from_dict(rederived(copy.deepcopy(whole))) == honest
    for name, place, value in forged_numbers(whole):
        changed = copy.deepcopy(whole)
        at = changed
        for step in place[:-1]:
            at = at[step]
        assert at[place[-1]] != value, name
        at[place[-1]] = value
        if changed["claim"]["key"] is not None:
            rederived(changed)
        with pytest.raises(ReportError):
            Report.from_dict(changed)


def test_a_repeated_audit_compares_the_key_test(honest: Report) -> None:
    key = honest.findings.key
    assert key is not None
    assert not compare(honest, honest).differences
    for changes in ({"exceeding": key.exceeding // 2}, {"victim": 0}, {"keys_tried": 2},
                    {"references": {"reference_a": 50_000}}):  # fmt: skip
        other = replace(honest, findings=replace(honest.findings, key=replace(key, **changes)))
        assert compare(honest, other).differences, changes


@pytest.mark.parametrize(("repeated", "alike"), [(21_620, True), (21_000, False), (0, False)])
@pytest.mark.parametrize("place", ["key_test", "key_test@250"])
def test_decoys_that_change_sides_for_an_auditors_encoder_are_rounding(
    honest: Report, place: str, repeated: int, alike: bool
) -> None:
    """Counts of an auditor's own encoder are compared as the suspect's: as p-values, 2 % apart at most."""

    def audited(count: int, value: float = 0.5) -> Report:
        values = {place: float(count), "partial_rsa_relative": value}
        own = AuditorEncoder(name="own", sha256="0" * 64, provenance="", values=values, problems=())
        return replace(honest, findings=replace(honest.findings, auditor_panel=(own,)))

    assert (not compare(audited(21_624), audited(repeated)).differences) is alike
    assert compare(audited(21_624), audited(21_624, 0.51)).differences


@pytest.mark.parametrize("field", ["seed", "n_public", "gmm_components", "n_rotations", "repeat_share", "decoys"])
@pytest.mark.parametrize("value", [-1, 10**12, 10**30, 1e308])
def test_a_plan_of_absurd_size_is_refused_before_any_work(folder: Path, field: str, value: float) -> None:
    plan = json.loads((folder / "claim.json").read_bytes())["plan"]
    with pytest.raises(OwnershipError, match="plan|claim integrity" if value == 10**30 else "plan"):
        Claim.load(rewritten(folder, {}, plan={**plan, field: value}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64, torch.float32])
def test_a_key_folder_with_digests_of_another_type_is_refused(
    material: KeyMaterial, tmp_path: Path, dtype: torch.dtype
) -> None:
    from safetensors.torch import save

    material.save(tmp_path)
    pool = torch.zeros(len(material.digests), dtype=dtype)
    (tmp_path / "probes.safetensors").write_bytes(save({"probes": material.probes, "pool_digests": pool}))
    with pytest.raises(ClaimError):
        KeyMaterial.load(tmp_path)


def test_no_report_names_the_secret(honest: Report, material: KeyMaterial, tmp_path: Path) -> None:
    secret = material.key.secret
    spelled = (secret, secret.hex().encode(), secret.hex().upper().encode(), base64_text(secret).encode())
    shown = [canonical_json(honest.to_dict()), render_html(honest).encode(), material.key.commitment]
    shown += [repr(x).encode() for x in (material, honest, Drawn.of(material))]
    for text in shown:
        assert not any(s in text for s in spelled)
    for name, frame in Drawn.of(material).frames.items():
        assert not any(f"{x:.6f}".encode() in text for x in frame[:3].ravel() for text in shown[:3]), name
