"""The auditor's own encoders, scored by the tests that were made on the suspect."""

from __future__ import annotations

from ownership.auditing.session import SuspectSession
from ownership.auditing.twins_test import twins_test
from ownership.claims.claim import Claim
from ownership.claims.key_ranks import key_rank
from ownership.evidence.statistics import score_one
from ownership.suspects.suspect import Suspect
from ownership.verdict.findings import KEY_TEST, TWINS_TEST, Findings
from ownership.verdict.results import AuditorEncoder


def score_auditor_encoder(claim: Claim, encoder: Suspect, provenance: str, findings: Findings) -> AuditorEncoder:
    """Return the scores of an auditor's own encoder, by the tests that were made on the suspect."""
    session = SuspectSession(encoder.asked(), claim, encoder.name)
    session.query_all()
    encoder.pause()  # one process at a time
    values: dict[str, float] = {}
    if not session.problems:
        values = score_one(session.responses, claim.context, [r.name for r in findings.results])[0]
        if findings.key is not None:
            values[KEY_TEST] = key_rank(claim, session.responses).exceeding
        if (twins := twins_test(claim, session.responses)) is not None and findings.twins is not None:
            values[TWINS_TEST] = twins.exceeding
        for interim in findings.interim_analyses:
            sizes, names = claim.sizes(interim.queries), [r.name for r in interim.results]
            cut = score_one(session.responses.first(sizes), claim.context.first(sizes), names)[0]
            values |= {f"{name}@{interim.queries}": value for name, value in cut.items()}
            if interim.key is not None:
                found = key_rank(claim, session.responses, sizes["public"])
                values[f"{KEY_TEST}@{interim.queries}"] = found.exceeding
    return AuditorEncoder(
        name=encoder.name,
        sha256=encoder.sha256,
        provenance=provenance,
        values=values,
        problems=tuple(session.problems),
    )
