"""docs/schema: what is written validates; a missing, additional or misnamed field does not."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.claims import Sealed
from support.encoders import as_suspect, encoder
from support.tampering import places

from ownership import audit
from ownership.auditing.batch import AuditOutcome, summarize
from ownership.claims.claim import Claim
from ownership.io.canonical import canonical_json
from ownership.reports.html import write_html
from ownership.reports.signature import sign_report
from ownership.sealing.disclosure import disclose
from ownership.sealing.redacted_copy import write_redacted_copy
from ownership.suspects.suspect import Suspect
from ownership.verdict.records import AuditOptions

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests/golden"
SCHEMAS = {p.name.removesuffix(".schema.json"): json.loads(p.read_bytes()) for p in ROOT.glob("docs/schema/*.json")}

NAMES: dict[str, tuple[str, ...]] = {
    "claim": ("data", "parts"),
    "report": ("skipped", "versions", "maps", "members", "references", "strata", "probes", "values", "files", "sandbox",
               "models_checked", "pvalues", "data", "baselines"),
    "summary": ("data",),
    "redaction": ("leaves",),
}  # fmt: skip
"""Objects whose keys are names, not fields."""


def valid(kind: str, value: Any) -> bool:
    return bool(Draft202012Validator(SCHEMAS[kind]).is_valid(value))


def read(name: str) -> Any:
    return json.loads((GOLDEN / name).read_bytes())


def payload(envelope: Any) -> Any:
    return json.loads(base64.b64decode(envelope["payload"]))


def model(seed: int, name: str = "s.onnx") -> Suspect:
    return as_suspect(encoder(seed), name, digest="ab" * 32)


@pytest.fixture(scope="module")
def fresh(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What today's code writes, with every optional part."""
    folder, claim = tmp_path_factory.mktemp("fresh"), Claim.load(sealed.folder)
    brought = [(model(41, "own.onnx"), "made here")]
    whole = audit(claim, model(77), AuditOptions(paper_tests=True), auditor_panel=brought, models=[])
    tried = audit(claim, model(1), AuditOptions(preprocessings=("try",)))
    early = audit(claim, model(1), AuditOptions(stop_early=True))
    whole.save(folder / "report.json")
    write_html(whole, folder / "report.html")
    sign_report(folder, sealed.key, auditor="A", received=["claim: from B, 2026-01-01, by C"])
    envelopes = [json.loads((f / "seal/statement.dsse.json").read_bytes()) for f in (folder, sealed.folder)]
    made = {
        "claim": [sealed.content],
        "report": [json.loads(canonical_json(r.to_dict())) for r in (whole, tried, early)],
        "envelope": envelopes,
        "statement": [payload(e) for e in envelopes],
        "disclosure": [json.loads(disclose(sealed.folder, ["key.json", "private/1"], data=d)) for d in (True, False)]
        + [json.loads(disclose(sealed.folder, ["plan"]))],
    }
    made["claim"].append(read("claim/claim.json"))
    made["report"].append(read("report/report.json"))
    made["disclosure"].append(read("disclosure.json"))
    made["redaction"] = [read("redacted/redacted.json")]
    batch = summarize(
        claim.sha256, 0.01, [AuditOutcome(name="a", folder="a", report=whole), AuditOutcome(name="b", refused="no")]
    )
    made["summary"] = [json.loads(canonical_json(batch.to_dict()))]
    write_redacted_copy(sealed.folder, folder / "redacted")
    made["redaction"].append(json.loads((folder / "redacted/redacted.json").read_bytes()))
    return made


def test_the_schemas_are_schemas() -> None:
    assert SCHEMAS.keys() == {"claim", "report", "statement", "envelope", "disclosure", "redaction", "summary"}
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
        assert schema["$id"].endswith(".schema.json")


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_what_is_written_validates(fresh: dict[str, list[Any]], kind: str) -> None:
    for value in fresh[kind]:
        errors = [f"{e.json_path}: {e.message[:300]}" for e in Draft202012Validator(SCHEMAS[kind]).iter_errors(value)]
        assert not errors
    assert len(fresh["report"]) == 4


def _fields(kind: str, value: Any) -> Iterator[tuple[Any, ...]]:
    """Paths to the fields of objects that are closed; of lists, the first entry stands for all."""
    for path in places(value):
        if not isinstance(path[-1], str) or any(isinstance(step, int) and step > 0 for step in path):
            continue
        names = [i for i, step in enumerate(path[:-1]) if step in NAMES.get(kind, ())]
        if not names or (len(path) - names[-1] == 3 and path[names[-1]] in ("parts", "strata")):
            yield path


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_a_field_more_less_or_misnamed_is_refused(fresh: dict[str, list[Any]], kind: str) -> None:
    value = fresh[kind][0]
    count = 0
    for path in _fields(kind, value):
        for how in ("removed", "misnamed", "added"):
            new = copy.deepcopy(value)
            at = new
            for step in path[:-1]:
                at = at[step]
            if how == "added":
                at["something_else"] = 1
            else:
                stored = at.pop(path[-1])
                if how == "misnamed":
                    at[path[-1] + "x"] = stored
            count += 1
            assert not valid(kind, new), f"{path} {how}"
    assert (
        count
        > {
            "claim": 80,
            "report": 200,
            "statement": 30,
            "envelope": 12,
            "disclosure": 25,
            "redaction": 9,
            "summary": 35,
        }[kind]
    )


def test_values_of_another_kind_are_refused(fresh: dict[str, list[Any]]) -> None:
    report, claim = fresh["report"][0], fresh["claim"][0]
    for change in ({"verdict": "COPIED"}, {"schema_version": 7}, {"results": {}}, {"schema_version": 2}):
        assert not valid("report", {**report, **change}), change
    for change in ({"format_version": 7}, {"format_version": 2}, {"content_sha256": "AB" * 32}, {"panel": None}):
        assert not valid("claim", {**claim, **change}), change
    of_report, of_claim = fresh["statement"]
    assert not valid("statement", {**of_report, "predicateType": of_claim["predicateType"]})
    assert not valid("statement", {**of_report, "subject": of_claim["subject"]})
    assert not valid("statement", {**of_report, "subject": of_report["subject"][:1]})
    envelope = fresh["envelope"][0]
    assert not valid("envelope", {**envelope, "signatures": envelope["signatures"] * 2})
    assert not valid("envelope", {**envelope, "payload": "a"})
