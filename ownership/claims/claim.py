"""The claim: what an owner fixes before a dispute, as a folder of JSON and safetensors (docs/format.md).

```
claim/
├── claim.json              format version, plan, victim, panel, references, scores, SHA-256 of every part and of itself
├── key.json                the watermark key (secret)
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

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from ownership.claims.probes import WatermarkProbes, check_rows
from ownership.claims.record import EncoderRecord, teachers_among
from ownership.claims.redaction import PRIVATE_PROBES, PRIVATE_SETS, Redaction
from ownership.claims.seal import Seal
from ownership.claims.storage import VerifiedFolder, open_folder, write_folder
from ownership.encoders.projection import load_projection_head
from ownership.errors import ClaimError
from ownership.evidence.querying import Probes
from ownership.evidence.responses import Responses, ScoringContext
from ownership.evidence.statistics import Scores
from ownership.io.canonical import canonical_json, parse_json
from ownership.plan import STRATA, Plan
from ownership.watermark import Watermark, WatermarkKey, stored_predictor


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Claim:
    """A claim in memory: made by `build_claim`, read by `Claim.load`.

    Attributes:
        plan: Tests, error rate, sizes and seed.
        victim: The owner's encoder.
        members: The reference panel, without duplicates.
        references: The reference surrogates.
        scores: Scores of the panel, each member against the others, fixed when the claim was built.
        reference_scores: Scores of the references against the panel.
        interim_scores: Queries of an interim analysis -> scores of the panel on its probes.
        interim_reference_scores: Queries of an interim analysis -> scores of the references on its probes.
        dropped: Panel entries that were left out, each with the reason.
        data: Descriptions and digests of the private and public images.
        probes: The probe images, by set.
        responses: Representations of victim, members and references, by name.
        watermark: Key and predictor; None without a watermark.
        watermark_probes: Label, angle and source of each watermark probe; None without a watermark.
        projection_head: The projection head of the victim's training; None if unknown or redacted.
        sha256: Content digest; empty until the claim is saved.
        seal: The seal; None if the claim is not sealed.
        redaction: What is missing from a redacted claim.
    """

    plan: Plan
    victim: EncoderRecord
    members: tuple[EncoderRecord, ...]
    references: tuple[EncoderRecord, ...]
    scores: Scores
    reference_scores: Scores
    interim_scores: dict[int, Scores]
    interim_reference_scores: dict[int, Scores]
    dropped: tuple[str, ...]
    data: dict[str, str]
    probes: Probes
    responses: dict[str, Responses]
    watermark: Watermark | None = None
    watermark_probes: WatermarkProbes | None = None
    projection_head: nn.Module | None = None
    sha256: str = ""
    seal: Seal | None = None
    redaction: Redaction = field(default_factory=Redaction)

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
            teachers=teachers_among(self.members),
            watermark_labels=None if probes is None else probes.labels.numpy(),
            watermark_sources=None if probes is None else probes.sources.numpy(),
            predictor=None if watermark is None else watermark.predictor,
            projection_head=self.projection_head,
        )

    def sizes(self, queries: int) -> dict[str, int]:
        """Return the number of probes of each set in an interim analysis after `queries` queries."""
        return self.plan.sizes(queries, watermark="watermark" in self.probes)

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
            "scores": self.scores,
            "reference_scores": self.reference_scores,
            "interim_scores": {str(n): s for n, s in self.interim_scores.items()},
            "interim_reference_scores": {str(n): s for n, s in self.interim_reference_scores.items()},
            "dropped": list(self.dropped),
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
        victim = EncoderRecord.from_dict(content["victim"])
        members = tuple(EncoderRecord.from_dict(m) for m in content["panel"])
        if any(m.kind not in STRATA for m in members):
            raise ClaimError("claim: a panel member of an unknown stratum", f"one of: {', '.join(STRATA)}")
        references = tuple(EncoderRecord.from_dict(m) for m in content["references"])
        probes, watermark_probes = _probes(folder)
        head = parts.get("projection_head.safetensors")
        return cls(
            plan=Plan.from_dict(content["plan"]),
            victim=victim,
            members=members,
            references=references,
            scores=_scores(content["scores"]),
            reference_scores=_scores(content["reference_scores"]),
            interim_scores=_interim_scores(content["interim_scores"]),
            interim_reference_scores=_interim_scores(content["interim_reference_scores"]),
            dropped=tuple(str(d) for d in content["dropped"]),
            data={str(k): str(v) for k, v in content["data"].items()},
            probes=probes,
            responses={m.name: _responses(folder, m.name, probes) for m in (victim, *members, *references)},
            watermark=_watermark(folder, victim.dim),
            watermark_probes=watermark_probes,
            projection_head=None if head is None else load_projection_head(load(head)),
            sha256=folder.sha256,
            seal=folder.seal,
            redaction=folder.redaction,
        )


def _probes(folder: VerifiedFolder) -> tuple[Probes, WatermarkProbes | None]:
    tensors = load(folder.parts["probes.safetensors"])
    watermark_probes = WatermarkProbes.pop_from(tensors)
    if watermark_probes is not None:
        watermark_probes.check(tensors)
    if not tensors.keys().isdisjoint(PRIVATE_SETS):
        raise ValueError("private images among the other probes")
    if PRIVATE_PROBES in folder.redaction.parts:
        return tensors, watermark_probes
    private = load(folder.parts[PRIVATE_PROBES])
    if not set(private) <= set(PRIVATE_SETS):
        raise ValueError("other probes among the private images")
    return tensors | private, watermark_probes


def _watermark(folder: VerifiedFolder, dim: int) -> Watermark | None:
    named = folder.content["parts"]
    if ("key.json" in named) != ("predictor.safetensors" in named):
        raise ValueError("a key without its predictor, or a predictor without its key")
    if "predictor.safetensors" not in named:
        return None
    key = None
    if "key.json" in folder.parts:
        key = WatermarkKey.from_dict(parse_json(folder.parts["key.json"], ClaimError, "claim: key.json"))
    return Watermark(key=key, predictor=stored_predictor(load(folder.parts["predictor.safetensors"]), dim))


def _responses(folder: VerifiedFolder, name: str, probes: Probes) -> Responses:
    tensors = load(folder.parts[f"representations/{name}.safetensors"])
    redacted = PRIVATE_SETS if PRIVATE_PROBES in folder.redaction.parts else ()
    sets = {k: v.float().numpy() for k, v in tensors.items() if k not in redacted}
    check_rows(sets, probes)
    return Responses(name, sets)


def _scores(value: Mapping[str, Any]) -> Scores:
    return {str(s): {str(n): float(x) for n, x in by_name.items()} for s, by_name in value.items()}


def _interim_scores(value: Mapping[str, Any]) -> dict[int, Scores]:
    return {int(n): _scores(scores) for n, scores in value.items()}
