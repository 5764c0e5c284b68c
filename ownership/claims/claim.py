"""The claim: what an owner fixes before a dispute, as a folder of JSON and safetensors (docs/format.md).

```
claim/
├── claim.json              format version, plan, victim, panel, references, SHA-256 of every part and of itself
├── keyed.json              key of the keyed watermark (secret)
├── pool.sha256             SHA-256 of each image of the pool that the key draws the public probes from, 32 bytes each
├── key.json                key of the rotation watermark (secret)
├── twins.json              commitment to twins, and the anchor that picked the victim among them
├── twins/*.safetensors     representations of the public probes by each twin
├── predictor.safetensors   the rotation predictor (secret)
├── projection_head.safetensors
├── probes.safetensors      the probe images that are not private; label, angle and source of each watermark probe
├── private_probes.safetensors      the owner's private images, used by dataset inference only (secret)
├── representations/*.safetensors   representations of the victim, every panel member and every reference surrogate
├── seal/                   signature, Merkle tree and timestamps of a sealed claim (ownership.claims.seal)
└── redacted.json           of a redacted claim: the parts that are missing (ownership.claims.redaction)
```

`ownership.claims.storage` checks the folder; this module gives its content a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from ownership.attestation.timestamps import Timestamp
from ownership.claims.parts import (
    FEATURES,
    KEYED,
    POOL,
    check_references,
    positive,
    read_material,
    read_probes,
    read_responses,
    read_twins,
    read_watermark,
)
from ownership.claims.probes import WatermarkProbes
from ownership.claims.record import EncoderRecord, teachers_among
from ownership.claims.redaction import PRIVATE_PROBES, PRIVATE_SETS, Redaction
from ownership.claims.scoring import PanelScores, score_panel
from ownership.claims.seal import Seal
from ownership.claims.storage import VerifiedFolder, open_folder, write_folder
from ownership.claims.twins import Twins
from ownership.encoders.projection import load_projection_head
from ownership.errors import ClaimError
from ownership.evidence.partial_regression import baseline_directions
from ownership.evidence.querying import Probes
from ownership.evidence.responses import Responses, ScoringContext
from ownership.io.canonical import canonical_json
from ownership.io.text import printable
from ownership.keyed.pool import KeyMaterial
from ownership.plan import STRATA, Plan
from ownership.watermark import Watermark

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Claim:
    """A claim in memory: made by `build_claim`, read by `Claim.load`.

    Attributes:
        plan: Tests, error rate, sizes and seed.
        victim: The owner's encoder.
        members: The reference panel, without duplicates.
        references: The reference surrogates.
        dropped: Panel entries that were left out, each with the reason.
        data: Descriptions and digests of the private and public images.
        probes: The probe images, by set.
        responses: Representations of victim, members and references, by name.
        material: Key of the keyed watermark, and what it draws; None without one.
        anchor: Timestamp of the key's commitment, its authority checked against no root certificates, if any.
        keys_tried: Commitments that the owner declares to have made for this victim.
        twins: The commitment that the victim was picked from, with all twins' representations; None without one.
        twins_anchor: Timestamp of that commitment, its authority checked against no root certificates, if any.
        twins_tried: Picks that the owner declares to have had made for this victim.
        watermark: Key and predictor of the rotation watermark; None without one.
        watermark_probes: Label, angle and source of each watermark probe; None without a watermark.
        projection_head: The projection head of the victim's training; None if unknown or redacted.
        sha256: Content digest; empty until the claim is saved.
        seal: The seal; None if the claim is not sealed.
        redaction: What is missing from a redacted claim.
        scored: The scores of panel and references, once they were computed (`panel_scores`); never stored.
    """

    plan: Plan
    victim: EncoderRecord
    members: tuple[EncoderRecord, ...]
    references: tuple[EncoderRecord, ...]
    dropped: tuple[str, ...]
    data: dict[str, str]
    probes: Probes
    responses: dict[str, Responses]
    material: KeyMaterial | None = None
    anchor: Timestamp | None = None
    keys_tried: int = 1
    twins: Twins | None = None
    twins_anchor: Timestamp | None = None
    twins_tried: int = 1
    watermark: Watermark | None = None
    watermark_probes: WatermarkProbes | None = None
    projection_head: nn.Module | None = None
    sha256: str = ""
    seal: Seal | None = None
    redaction: Redaction = field(default_factory=Redaction)
    scored: PanelScores | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # safetensors returns tensors in varying order; the choice of repeated probes must not depend on it
        object.__setattr__(self, "probes", dict(sorted(self.probes.items())))
        if (self.watermark is None) != (self.watermark_probes is None):
            raise ValueError("a watermark without its probes, or probes without a watermark")

    @property
    def context(self) -> ScoringContext:
        """Return what an encoder's responses are scored against."""
        watermark, probes = self.watermark, self.watermark_probes
        return ScoringContext(
            plan=self.plan,
            victim=self.responses[self.victim.name],
            panel=tuple(self.responses[m.name] for m in self.members),
            baselines=baseline_directions(self.probes["public"]) if self.members else (),
            teachers=teachers_among(self.members),
            watermark_labels=None if probes is None else probes.labels.numpy(),
            watermark_sources=None if probes is None else probes.sources.numpy(),
            predictor=None if watermark is None else watermark.predictor,
            projection_head=self.projection_head,
        )

    @property
    def panel_scores(self) -> PanelScores:
        """Return the scores of panel and references, computed from their representations at the first access."""
        if self.scored is not None:
            return self.scored
        references = [self.responses[m.name] for m in self.references]
        sizes = {n: self.sizes(n) for n in self.plan.interim_queries} if self.members else {}
        scored = score_panel(self.context, references, sizes)
        object.__setattr__(self, "scored", scored)
        return scored

    @property
    def error_rate(self) -> float:
        """Return the probability of SUPPORTED for an independent encoder, at most: the sum over the evidence."""
        by_twins = self.plan.twins_alpha if self.twins_decide else 0
        return (self.plan.key_alpha if self.material else 0) + by_twins + (self.plan.alpha if self.members else 0)

    @property
    def twins_decide(self) -> bool:
        """Return whether the test of twins can reject: they are enough, and the owner cannot have picked."""
        if self.twins is None or not self.twins.commitment.binds(self.twins_anchor):
            return False
        return self.twins_tried / len(self.twins.files) <= self.plan.twins_alpha

    def sizes(self, queries: int) -> dict[str, int]:
        """Return the number of probes of each set in an interim analysis after `queries` queries."""
        return self.plan.sizes(queries, watermark="watermark" in self.probes)

    def under(self, roots: Sequence[Certificate]) -> Claim:
        """Return the claim with its timestamps checked against root certificates.

        Raises:
            ClaimError: If it has no timestamp to check: it is not sealed, and its key is not anchored.
            ClaimIntegrityError: If no trusted authority vouches for one.
        """
        if self.seal is None and self.anchor is None and self.twins_anchor is None:
            raise ClaimError("the claim is not sealed, nor is its key anchored: no timestamps", "leave out --roots")
        return replace(
            self,
            seal=None if self.seal is None else self.seal.under(roots),
            anchor=None if self.material is None else self.material.key.timestamp(roots),
            twins_anchor=None if self.twins is None else self.twins.commitment.timestamp(roots),
        )

    def stratum(self, kind: str) -> tuple[EncoderRecord, ...]:
        """Return the panel members of one stratum."""
        return tuple(m for m in self.members if m.kind == kind)

    def save(self, folder: Path | str) -> Claim:
        """Write the claim to a new folder, completely or not at all.

        Returns:
            The claim as written: with its content digest, not sealed yet.

        Raises:
            ClaimError: If the folder exists and is not empty, or the claim is redacted.
            OwnershipError: If the folder cannot be written.
        """
        folder = Path(folder)
        if self.redaction.parts:
            raise ClaimError("a redacted claim cannot be written as a claim", "copy its folder")
        return replace(self, sha256=write_folder(folder, self._content(), self._parts()), seal=None)

    def _parts(self) -> dict[str, bytes]:
        public = {name: images for name, images in self.probes.items() if name not in PRIVATE_SETS}
        if self.watermark_probes is not None:
            public |= self.watermark_probes.to_tensors()
        parts = {
            "probes.safetensors": save(public),
            PRIVATE_PROBES: save({name: self.probes[name] for name in PRIVATE_SETS if name in self.probes}),
        }
        if self.material is not None:
            parts[KEYED] = canonical_json(self.material.key.to_dict())
            parts[POOL] = self.material.digests
            if self.material.features is not None:
                parts[FEATURES] = self.material.features.to_bytes()
        if self.twins is not None:
            parts |= self.twins.parts()
        if self.watermark is not None and self.watermark.key is not None:
            parts["key.json"] = canonical_json(self.watermark.key.to_dict())
        if self.watermark is not None:
            parts["predictor.safetensors"] = save(self.watermark.predictor.state_dict())
        if self.projection_head is not None:
            parts["projection_head.safetensors"] = save(self.projection_head.state_dict())
        for name, responses in self.responses.items():
            tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in responses.sets.items()}
            parts[f"representations/{name}.safetensors"] = save(tensors)
        return parts

    def _content(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_dict(),
            "victim": self.victim.to_dict(),
            "panel": [m.to_dict() for m in self.members],
            "references": [m.to_dict() for m in self.references],
            "dropped": list(self.dropped),
            "keys_tried": self.keys_tried,
            "twins_tried": self.twins_tried,
            "data": self.data,
        }

    @classmethod
    def load(cls, folder: Path | str) -> Claim:
        """Read a claim; every digest is checked before any number is used.

        Raises:
            ClaimError: If the folder is no claim, or of an unknown format version.
            ClaimIntegrityError: If anything in it was changed.
        """
        return cls.parse(open_folder(folder))

    @classmethod
    def parse(cls, folder: VerifiedFolder) -> Claim:
        """Return the claim in a folder whose digests were checked.

        Raises:
            ClaimError: If a field is missing or malformed.
        """
        try:
            return cls._parse(folder)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError, SafetensorError) as e:
            raise ClaimError("claim: a field is missing or malformed", "it was written by another program") from e

    @classmethod
    def _parse(cls, folder: VerifiedFolder) -> Claim:
        content, parts = folder.content, folder.parts
        if unknown := set(content) - _FIELDS:
            raise ClaimError(f"claim: unknown fields {', '.join(map(printable, sorted(unknown)))}", "update turnmark")
        victim = EncoderRecord.from_dict(content["victim"])
        members = tuple(EncoderRecord.from_dict(m) for m in content["panel"])
        if any(m.kind not in STRATA for m in members):
            raise ClaimError("claim: a panel member of an unknown stratum", f"one of: {', '.join(STRATA)}")
        references = tuple(EncoderRecord.from_dict(m) for m in content["references"])
        probes, watermark_probes = read_probes(folder)
        head = parts.get("projection_head.safetensors")
        material = read_material(folder, probes["public"])
        responses = {m.name: read_responses(folder, m.name, probes) for m in (victim, *members, *references)}
        check_references(responses[victim.name], {m.name: responses[m.name] for m in references})
        twins = read_twins(folder, material, victim.sha256, responses[victim.name])
        plan = Plan.from_dict(content["plan"])
        if material is not None:
            plan.check_key_test({name: len(images) for name, images in probes.items()}, material.key.directions)
        return cls(
            plan=plan,
            victim=victim,
            members=members,
            references=references,
            dropped=tuple(str(d) for d in content["dropped"]),
            data={str(k): str(v) for k, v in content["data"].items()},
            probes=probes,
            responses=responses,
            material=material,
            anchor=None if material is None else material.key.timestamp(),
            keys_tried=positive(content["keys_tried"]),
            twins=twins,
            twins_anchor=None if twins is None else twins.commitment.timestamp(),
            twins_tried=positive(content["twins_tried"]),
            watermark=read_watermark(folder, victim.dim),
            watermark_probes=watermark_probes,
            projection_head=None if head is None else load_projection_head(load(head)),
            sha256=folder.sha256,
            seal=folder.seal,
            redaction=folder.redaction,
        )


_FIELDS = {"format_version", "content_sha256", "parts", "plan", "victim", "panel", "references"} | {
    "dropped",
    "keys_tried",
    "twins_tried",
    "data",
}
