"""Turnmark's evidence: was this encoder copied from mine?

The whole door is three names::

    from ownership import Claim, load_suspect, audit

    claim = Claim.load("claim/")                        # digests are checked before any number is used
    suspect = load_suspect("suspect.onnx")              # PyTorch or ONNX, in a process of its own that is locked in
    report = audit(claim, suspect)
    print(report.verdict.value, report.adjusted_pvalues)

A suspect need not be a file: `load_recorded` and `load_endpoint`.

An owner makes the claim with `build_claim`. Read on in this order: `_audit` (the engine), `evidence` and `scores` (what
is measured), `testing` and `stats` (how it is tested), `verdict` and `report` (what follows), `claim` and `build` (what
is fixed before), `statement`, `seal` and `merkle` (how others can know that it was), `report_seal`, `custody` and
`reproduce` (how they check a report).

Names are loaded when first used, so that `import ownership` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ownership.auditing.engine import audit
    from ownership.auditing.probe_export import export_probes
    from ownership.auditing.reproduce import reproduce
    from ownership.claims.build import build_claim
    from ownership.claims.claim import Claim
    from ownership.claims.record import EncoderRecord
    from ownership.encoders.architectures import ARCHITECTURES, Encoder
    from ownership.errors import (
        ClaimError,
        ClaimIntegrityError,
        DataError,
        OwnershipError,
        ReportError,
        ReportIntegrityError,
        SandboxError,
        SuspectError,
        TrainingError,
        UnsafeSuspectError,
    )
    from ownership.plan import Plan
    from ownership.reports.html import render_html, write_html
    from ownership.reports.report import Report
    from ownership.reports.signature import sign_report, verify_report
    from ownership.sealing.create import seal_claim
    from ownership.sealing.verify import verify_claim
    from ownership.suspects.endpoint.endpoint import load_endpoint
    from ownership.suspects.recorded.recorded import load_recorded
    from ownership.suspects.suspect import Suspect, load_encoder, load_suspect
    from ownership.verdict.results import TestResult
    from ownership.verdict.rule import Verdict
    from ownership.watermark import RotationPredictor, WatermarkKey, paper_key, secret_key

_HOMES = {
    "ARCHITECTURES": "encoders.architectures",
    "Encoder": "encoders.architectures",
    "audit": "auditing.engine",
    "build_claim": "claims.build",
    "Claim": "claims.claim",
    "EncoderRecord": "claims.record",
    "load_endpoint": "suspects.endpoint.endpoint",
    "ClaimError": "errors",
    "ClaimIntegrityError": "errors",
    "DataError": "errors",
    "OwnershipError": "errors",
    "ReportError": "errors",
    "ReportIntegrityError": "errors",
    "SandboxError": "errors",
    "SuspectError": "errors",
    "TrainingError": "errors",
    "UnsafeSuspectError": "errors",
    "render_html": "reports.html",
    "write_html": "reports.html",
    "Plan": "plan",
    "export_probes": "auditing.probe_export",
    "load_recorded": "suspects.recorded.recorded",
    "Report": "reports.report",
    "sign_report": "reports.signature",
    "verify_report": "reports.signature",
    "reproduce": "auditing.reproduce",
    "TestResult": "verdict.results",
    "Verdict": "verdict.rule",
    "seal_claim": "sealing.create",
    "verify_claim": "sealing.verify",
    "Suspect": "suspects.suspect",
    "load_encoder": "suspects.suspect",
    "load_suspect": "suspects.suspect",
    "RotationPredictor": "watermark",
    "WatermarkKey": "watermark",
    "paper_key": "watermark",
    "secret_key": "watermark",
}

__all__ = [
    "ARCHITECTURES",
    "Claim",
    "ClaimError",
    "ClaimIntegrityError",
    "DataError",
    "Encoder",
    "EncoderRecord",
    "OwnershipError",
    "Plan",
    "Report",
    "ReportError",
    "ReportIntegrityError",
    "RotationPredictor",
    "SandboxError",
    "Suspect",
    "SuspectError",
    "TestResult",
    "TrainingError",
    "UnsafeSuspectError",
    "Verdict",
    "WatermarkKey",
    "audit",
    "build_claim",
    "export_probes",
    "load_encoder",
    "load_endpoint",
    "load_recorded",
    "load_suspect",
    "paper_key",
    "render_html",
    "reproduce",
    "seal_claim",
    "secret_key",
    "sign_report",
    "verify_claim",
    "verify_report",
    "write_html",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ownership' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ownership.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
