"""The claim: what an owner fixes before a dispute, as a folder of JSON and safetensors (docs/format.md).

```
claim/
├── claim.json              format version, plan, victim, panel, references, scores, SHA-256 of every part and of itself
├── key.json                the watermark key (secret)
├── predictor.safetensors   the rotation predictor (secret)
├── projection_head.safetensors
├── probes.safetensors      every other probe image, uint8, and of the rotated ones label, angle and image
├── private_probes.safetensors      the owner's private images, which only dataset inference asks about
├── representations/*.safetensors   answers of the victim, of every panel member, of every reference surrogate
├── seal/                   signature, Merkle tree, timestamps, if its owner sealed it (ownership.claims.seal)
└── redacted.json           of a view for an auditor: which parts are not in it (ownership.claims.redaction)
```

Rules of loading, each with a test that breaks exactly that rule:

1. `claim.json` is canonical JSON of a known format version and matches its own `content_sha256`.
2. If it is sealed, its owner's signature is good and of this very claim, and everything leads to the signed root.
3. Every part it names is there, or properly withheld, and matches its SHA-256. Nothing else is read.
4. Only then are tensors parsed and numbers used.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ownership.claims.probes import check_rows, check_shown
from ownership.claims.record import EncoderRecord, record_from, teachers_among
from ownership.claims.redaction import PRIVATE_PROBES, PRIVATE_SETS, Redaction, open_redaction, private_part
from ownership.claims.seal import Seal, check_seal, leaf_digests, open_seal
from ownership.encoders.projection import load_projection_head
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.evidence.querying import Probes
from ownership.evidence.responses import Responses, ScoringContext
from ownership.evidence.statistics import Scores
from ownership.io.canonical import canonical_json, parse_canonical, parse_json, sha256
from ownership.io.files import new_folder, read_bytes, refuse_existing, write_bytes
from ownership.io.text import printable
from ownership.plan import STRATA, Plan
from ownership.watermark import RotationPredictor, WatermarkKey, stored_predictor

FORMAT_VERSION = 4
READABLE = (1, 2, 3, 4)
"""Version 2 adds the scores of the looks, version 3 keeps private images apart from the other probes, version 4 says
which public probe each rotated one shows, and its predictor may read pairs."""

OF_EACH = ("watermark_labels", "watermark_angles", "watermark_images")
"""What is kept of each rotated probe, beside the probes."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Claim:
    """A claim in memory. Make one with `build_claim`, read one with `Claim.load`."""

    plan: Plan
    victim: EncoderRecord
    members: tuple[EncoderRecord, ...]  # the panel, without duplicates
    references: tuple[EncoderRecord, ...]
    scores: Scores  # of the panel, each member against the others; fixed at build time
    reference_scores: Scores
    interim_scores: dict[int, Scores]  # queries of a look before the last -> the panel's scores on its probes
    interim_reference_scores: dict[int, Scores]
    dropped: tuple[str, ...]  # panel entries left out, each with the reason
    data: dict[str, str]  # descriptions and digests of the private and public images
    probes: Probes
    responses: dict[str, Responses]  # victim, members, references by name
    key: WatermarkKey | None = None
    watermark_labels: Tensor | None = None
    watermark_angles: Tensor | None = None  # radians; None in claims of format 1
    watermark_images: Tensor | None = None  # which public probe each shows; None in claims of before format 4
    predictor: RotationPredictor | None = None
    projection_head: nn.Module | None = None
    sha256: str = ""  # content digest; empty until saved or loaded
    seal: Seal | None = None  # None: unsealed
    redaction: Redaction = field(default_factory=Redaction)  # what its owner keeps back, if this is a view

    def __post_init__(self) -> None:
        # safetensors gives tensors in another order each time; which probes are asked twice must not depend on it
        object.__setattr__(self, "probes", dict(sorted(self.probes.items())))

    @property
    def context(self) -> ScoringContext:
        """What scores are taken against."""
        return ScoringContext(
            plan=self.plan,
            victim=self.responses[self.victim.name],
            panel=tuple(self.responses[m.name] for m in self.members),
            teachers=teachers_among(self.members),
            watermark_labels=None if self.watermark_labels is None else self.watermark_labels.numpy(),
            watermark_images=None if self.watermark_images is None else self.watermark_images.numpy(),
            predictor=self.predictor,
            projection_head=self.projection_head,
        )

    def sizes(self, queries: int) -> dict[str, int]:
        """Returns how many probes of each set a look asks."""
        return self.plan.sizes(queries, watermark="watermark" in self.probes)

    def stratum(self, kind: str) -> tuple[EncoderRecord, ...]:
        """Returns the panel members of one stratum."""
        return tuple(m for m in self.members if m.kind == kind)

    def save(self, folder: Path) -> str:
        """Writes the claim to a new folder, whole or not at all.

        Returns:
            The content digest.

        Raises:
            ClaimError: if the folder exists and is not empty, or this is a view.
            OwnershipError: if it cannot be written.
        """
        refuse_existing(folder)
        if self.redaction.parts:
            raise ClaimError("a view of a claim cannot be written as a claim", "copy its folder")
        parts = self._parts()
        content = self._content(parts)
        digest = sha256(canonical_json(content))
        parts["claim.json"] = canonical_json({**content, "content_sha256": digest})
        with new_folder(folder) as new:
            for name, data in parts.items():
                write_bytes(new / name, data, secret=True)
        return digest

    def _parts(self) -> dict[str, bytes]:
        probes = {name: images for name, images in self.probes.items() if name not in PRIVATE_SETS}
        private = {name: images for name, images in self.probes.items() if name in PRIVATE_SETS}
        of_each = zip(OF_EACH, (self.watermark_labels, self.watermark_angles, self.watermark_images), strict=True)
        probes |= {name: values for name, values in of_each if values is not None}
        parts = {"probes.safetensors": save(probes)}
        if private:
            parts[PRIVATE_PROBES] = save(private)
        if self.key is not None and self.predictor is not None:
            parts["key.json"] = canonical_json(self.key.to_dict())
            parts["predictor.safetensors"] = save(self.predictor.state_dict())
        if self.projection_head is not None:
            parts["projection_head.safetensors"] = save(self.projection_head.state_dict())
        for name, responses in self.responses.items():
            tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in responses.sets.items()}
            parts[f"representations/{name}.safetensors"] = save(tensors)
        return parts

    def _content(self, parts: dict[str, bytes]) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
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
            "parts": {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in sorted(parts.items())},
        }

    @classmethod
    def load(cls, folder: Path | str) -> Claim:
        """Reads a claim and checks every digest before any number is used.

        Raises:
            ClaimError: if the folder is no claim, or of an unknown version.
            ClaimIntegrityError: if anything in it was changed.
        """
        folder = Path(folder)
        if not (folder / "claim.json").is_file() and not (folder / "seal").exists():
            raise ClaimError(f"{printable(folder, 300)} is no claim: it has no claim.json", "give the claim's folder")
        data = read_bytes(folder / "claim.json", ClaimIntegrityError, "claim")
        content = _verified_content(data)
        seal = open_seal(folder, content)
        _check_version(content)
        redaction = open_redaction(folder, content, None if seal is None else seal.leaves)
        shown = {name: entry for name, entry in content["parts"].items() if name not in redaction.parts}
        parts = {name: _verified_part(folder, name, entry) for name, entry in shown.items()}
        if seal is not None:
            digests = leaf_digests(data, shown, parts.get(private_part(shown)))
            seal = check_seal(folder, seal, digests, redaction.leaves)
        try:
            return replace(cls._from_content(content, parts, redaction), seal=seal)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as e:
            raise ClaimError("claim: a field is missing or malformed", "it was written by another program") from e

    @classmethod
    def _from_content(cls, content: dict[str, Any], parts: dict[str, bytes], redaction: Redaction) -> Claim:
        probes = load(parts["probes.safetensors"])
        if content["format_version"] >= 3 and not set(PRIVATE_SETS).isdisjoint(probes):
            raise ValueError("private images among the other probes")
        if PRIVATE_PROBES in parts:
            probes |= _private(load(parts[PRIVATE_PROBES]))
        labels, angles, images = (probes.pop(name, None) for name in OF_EACH)
        if images is not None:
            check_shown(images, probes)
        victim = record_from(content["victim"])
        members = tuple(record_from(m) for m in content["panel"])
        if any(m.kind not in STRATA for m in members):
            raise ClaimError("claim: a panel member of an unknown stratum", f"one of: {', '.join(STRATA)}")
        references = tuple(record_from(m) for m in content["references"])
        key = predictor = head = None
        if ("key.json" in content["parts"]) != ("predictor.safetensors" in content["parts"]):
            raise ValueError("a key without its predictor, or the other way round")
        if "key.json" in parts:
            key = WatermarkKey.from_dict(parse_json(parts["key.json"], ClaimError, "claim: key.json"))
        if "predictor.safetensors" in parts:
            predictor = stored_predictor(load(parts["predictor.safetensors"]), victim.dim)
        if "projection_head.safetensors" in parts:
            head = load_projection_head(load(parts["projection_head.safetensors"]))
        responses = {}
        for m in (victim, *members, *references):
            sets = {k: v.float().numpy() for k, v in load(parts[f"representations/{m.name}.safetensors"]).items()}
            if PRIVATE_PROBES in redaction.parts:
                sets = {k: v for k, v in sets.items() if k not in PRIVATE_SETS}
            check_rows(sets, probes)
            responses[m.name] = Responses(m.name, sets)
        return cls(
            plan=Plan.from_dict(content["plan"]),
            victim=victim,
            members=members,
            references=references,
            scores=_scores(content["scores"]),
            reference_scores=_scores(content["reference_scores"]),
            interim_scores=_by_look(content, "interim_scores"),
            interim_reference_scores=_by_look(content, "interim_reference_scores"),
            dropped=tuple(str(d) for d in content["dropped"]),
            data={str(k): str(v) for k, v in content["data"].items()},
            probes=probes,
            responses=responses,
            key=key,
            watermark_labels=labels,
            watermark_angles=angles,
            watermark_images=images,
            predictor=predictor,
            projection_head=head,
            sha256=content["content_sha256"],
            redaction=redaction,
        )


def _verified_content(data: bytes) -> dict[str, Any]:
    """Rule 1: canonical, matching its own digest."""
    damaged = ClaimIntegrityError(
        "claim integrity: claim.json does not match its own digest", "it was changed or damaged; get the original"
    )
    try:
        content = parse_canonical(data, ClaimError, "claim: claim.json")
    except ClaimError as e:
        raise damaged from e
    stated = content.pop("content_sha256", None)
    if sha256(canonical_json(content)) != stated:
        raise damaged
    return {**content, "content_sha256": stated}


def _check_version(content: dict[str, Any]) -> None:
    if content.get("format_version") not in READABLE or not isinstance(content.get("parts"), dict):
        raise ClaimError(
            f"claim of format version {printable(content.get('format_version'))}, this turnmark reads up to "
            f"{FORMAT_VERSION}",
            "update turnmark",
        )


def _verified_part(folder: Path, name: str, entry: object) -> bytes:
    """Rule 3: the part is a file inside the claim and matches its digest."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or path.is_symlink() or not path.is_file():
        raise ClaimIntegrityError(f"claim integrity: {printable(name)} is missing", "get the original claim")
    data = read_bytes(path, ClaimIntegrityError, "claim")
    if not isinstance(entry, dict) or sha256(data) != entry.get("sha256"):
        raise ClaimIntegrityError(
            f"claim integrity: {printable(name)} does not match its digest", "it was changed or damaged"
        )
    return data


def _private(probes: Probes) -> Probes:
    if not set(probes) <= set(PRIVATE_SETS):
        raise ValueError("other probes among the private images")
    return probes


def _scores(value: dict[str, Any]) -> Scores:
    return {str(s): {str(n): float(x) for n, x in by_name.items()} for s, by_name in value.items()}


def _by_look(content: dict[str, Any], field: str) -> dict[int, Scores]:
    if content["format_version"] == 1:
        return {}
    return {int(n): _scores(scores) for n, scores in content[field].items()}
