"""What tests of sealed claims share: names of files in a seal, and a bench for tampering."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support import independent_verifier
from support.claims import Sealed
from support.tampering import Bench, files_of

from ownership.claims.claim import Claim
from ownership.evidence.responses import Responses
from ownership.sealing.create import attach, seal_claim, write_request
from ownership.sealing.verify import verify_claim
from ownership.watermark import WatermarkKey

STATEMENT, PUBLIC, SALTS = "seal/statement.dsse.json", "seal/owner.pub", "seal/salts.json"


@pytest.fixture(scope="session")
def claim_bench(sealed: Sealed, claim: Claim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench for tampering with a sealed claim."""
    place = tmp_path_factory.mktemp("tamper")
    older = replace(
        claim,
        plan=replace(claim.plan, seed=1),
        watermark=replace(
            claim.watermark, key=WatermarkKey(sector_boundaries=(1.0, 1.0 + 3.0), margin=0.3, predictor_seed=4)
        ),
        probes={**claim.probes, "private": claim.probes["private"].flip(0)},
        responses={n: Responses(n, {k: v + 1 for k, v in a.sets.items()}) for n, a in claim.responses.items()},
    )
    older.save(place / "older")
    seal_claim(place / "older", sealed.key)
    write_request(place / "older", place / "older.tsq")
    attach(place / "older", sealed.first.reply(place / "older.tsq", place / "older.tsr").read_bytes())
    folder = shutil.copytree(sealed.folder, place / "claim")
    pems = [a.roots.read_bytes() for a in (sealed.first, sealed.second)]
    (place / "roots.pem").write_bytes(b"".join(pems))
    made = Bench(folder, files_of(folder), files_of(place / "older"), sealed, verify_claim, independent_verifier.verify)
    yield made
    assert files_of(folder) == made.files  # every change was undone
    print(f"\ntamper table: {made.cases} cases")
