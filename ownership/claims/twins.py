"""Twins with their representations: a folder of its own before a claim, and parts of the claim afterwards.

```
twins/
├── commitment.json              what is published and timestamped
├── commitment.tsr               a timestamp authority's reply; it picks a twin, unless a beacon's round does
├── twins.json                   the same, with the recipe
└── representations/*.safetensors   of each twin, in the order of the commitment (secret)
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from ownership.attestation.beacon import BeaconRound
from ownership.claims.record import NamedEncoder
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.evidence.querying import allclose_responses, query
from ownership.evidence.responses import Responses
from ownership.io.canonical import canonical_json, parse_canonical, sha256
from ownership.io.files import new_folder, read_bytes, refuse_existing, write_bytes
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.keyed.anchoring import COMMITMENT_FILE, REPLY_FILE
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.twin_test import Array, twin_components, twin_scores
from ownership.keyed.twins import Twin, TwinCommitment, probes_sha256

TWINS = "twins.json"
"""File with the commitment, in the folder of twins and in a claim."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Twins:
    """A commitment to twins, with their representations of the key's probes.

    Attributes:
        commitment: The commitment, and the signature that picks one of them.
        files: Of each twin, the bytes of the file with its representations, which the commitment names by digest.
    """

    commitment: TwinCommitment
    files: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def commit(
        cls,
        encoders: Sequence[NamedEncoder],
        material: KeyMaterial,
        recipe: Mapping[str, Any],
        progress: Progress = silent,
        *,
        beacon: BeaconRound | None = None,
    ) -> Twins:
        """Return a commitment to encoders, of which none is picked yet.

        Args:
            encoders: The twins, each with the SHA-256 of its file in its record; their order has no effect.
            material: The key that all of them were trained with. Its probes are shown to them.
            recipe: What they have in common, JSON-ready.
            progress: Called after every encoder.
            beacon: Future round of a beacon that shall pick; a timestamp authority does, if not given.

        Raises:
            ClaimError: If they are too few, too many, or two of them are the same file.
            SuspectError: If one cannot process the probes.
        """
        found: list[tuple[Twin, bytes]] = []
        for i, (record, encoder) in enumerate(encoders):
            rows = query(encoder, {"public": material.probes}, record.name).sets["public"]
            if not np.isfinite(rows).all():
                raise ClaimError(f"{printable(record.name)}: representations that are not finite", "leave it out")
            data = save({"public": torch.from_numpy(np.ascontiguousarray(rows))})
            found.append((Twin(encoder=record.sha256, representations=sha256(data)), data))
            progress("querying encoders", i + 1, len(encoders))
        found.sort(key=lambda entry: entry[0].encoder)
        commitment = TwinCommitment(
            probes=probes_sha256(material),
            recipe=dict(recipe),
            twins=tuple(twin for twin, _ in found),
            beacon=beacon,
        )
        return cls(commitment=commitment, files=tuple(data for _, data in found))

    def signed(self, commitment: TwinCommitment) -> Twins:
        """Return the same twins with their commitment anchored, or with the signature of its round."""
        return replace(self, commitment=commitment)

    @cached_property
    def representations(self) -> tuple[NDArray[np.float32], ...]:
        """The representations of the probes by each twin, `(n, d)`."""
        return tuple(load(data)["public"].float().numpy() for data in self.files)

    @cached_property
    def components(self) -> tuple[Array, ...]:
        """What of each twin a suspect has to predict (`twin_components`)."""
        return tuple(twin_components(rows.astype(np.float64)) for rows in self.representations)

    @property
    def picked(self) -> int:
        """The index of the twin that was picked.

        Raises:
            ClaimError: If none is picked yet.
        """
        index, named = self.commitment.picked, self.commitment.beacon
        if index is not None:
            return index
        if named is None:
            raise ClaimError("the twins are not anchored: none is picked yet", "turnmark twins anchor")
        raise ClaimError(
            f"none of the twins is picked yet: {named} picks, signed at {named.time.isoformat()}",
            "after that: turnmark twins anchor TWINS --beacon URL",
        )

    def check(self, material: KeyMaterial) -> None:
        """Check that the representations are those of the commitment, and of this key's probes.

        Raises:
            ClaimError: If the twins are of another key.
            ClaimIntegrityError: If a file is not the one that was committed to.
        """
        if self.commitment.probes != probes_sha256(material):
            raise ClaimError("the twins are of other probes than this key draws", "commit twins trained with one key")
        stated = [twin.representations for twin in self.commitment.twins]
        if [sha256(data) for data in self.files] != stated:
            raise ClaimIntegrityError("twins: representations are not those that were committed to: they were edited")
        try:
            fit = all(x.ndim == 2 and len(x) == len(material.probes) for x in self.representations)
        except (SafetensorError, KeyError) as e:
            raise ClaimError("twins: a file of representations is malformed", "restore the original") from e
        if not fit or not all(np.isfinite(x).all() for x in self.representations):
            raise ClaimError("twins: representations do not fit the probes", "restore the original")

    def check_victim(self, encoder_sha256: str, responses: Responses) -> None:
        """Check that a claim's victim is the twin that was picked.

        Args:
            encoder_sha256: SHA-256 of the victim's file.
            responses: Responses of the victim to the claim's probes.

        Raises:
            ClaimError: If it is another encoder, or none is picked yet.
            ClaimIntegrityError: If the victim has other representations than were committed to.
        """
        named = self.commitment.twins[self.picked].encoder
        if encoder_sha256 != named:
            raise ClaimError(f"the victim is not the twin that was picked, {named}", "claim and deploy that one")
        if not allclose_responses(self.representations[self.picked], responses.sets["public"]):
            raise ClaimIntegrityError("twins: the victim has other representations than were committed to")

    def parts(self) -> dict[str, bytes]:
        """Return the files that hold the twins in a claim, by name."""
        named = {twin_part(i): data for i, data in enumerate(self.files)}
        return {TWINS: canonical_json(self.commitment.to_dict())} | named

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> Twins:
        """Return the twins that `parts` stored; nothing but the commitment is checked.

        Raises:
            ClaimError: If the commitment is malformed.
            KeyError: If a file is missing.
        """
        commitment = TwinCommitment.from_dict(parse_canonical(parts[TWINS], ClaimError, TWINS))
        return cls(commitment=commitment, files=tuple(parts[twin_part(i)] for i in range(len(commitment.twins))))

    def save(self, folder: Path | str) -> None:
        """Write a new folder of twins, completely or not at all.

        Raises:
            ClaimError: If the folder exists and is not empty.
        """
        folder = Path(folder)
        refuse_existing(folder, ClaimError)
        with new_folder(folder) as place:
            for i, data in enumerate(self.files):
                write_bytes(place / f"representations/{i}.safetensors", data, secret=True)
            _write_commitment(self.commitment, place)

    def save_commitment(self, folder: Path | str) -> None:
        """Write the commitment, with what signs it by now, into the folder of these twins."""
        _write_commitment(self.commitment, Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Twins:
        """Return the twins in a folder. `check` has to follow, with the key.

        Raises:
            ClaimError: If a file is missing or malformed.
            ClaimIntegrityError: If the representations are not those of the commitment.
        """
        folder = Path(folder)
        if not (folder / TWINS).is_file():
            raise ClaimError(f"{printable(folder, 300)} holds no {TWINS}", "give a folder of turnmark twins commit")
        data = read_bytes(folder / TWINS, ClaimError, "twins")
        commitment = TwinCommitment.from_dict(parse_canonical(data, ClaimError, TWINS))
        names = [f"representations/{i}.safetensors" for i in range(len(commitment.twins))]
        files = tuple(read_bytes(folder / name, ClaimError, "twins") for name in names)
        if [sha256(x) for x in files] != [twin.representations for twin in commitment.twins]:
            raise ClaimIntegrityError("twins: representations are not those that were committed to: they were edited")
        return cls(commitment=commitment, files=files)


def twin_part(index: int) -> str:
    """Return the name of the part of a claim that holds the representations of one twin."""
    return f"twins/{index}.safetensors"


def _write_commitment(commitment: TwinCommitment, folder: Path) -> None:
    write_bytes(folder / TWINS, canonical_json(commitment.to_dict()), secret=True)
    write_bytes(folder / COMMITMENT_FILE, commitment.commitment)
    if commitment.anchor is not None:
        write_bytes(folder / REPLY_FILE, commitment.anchor)


@lru_cache(maxsize=128)
def scores_against(twins: Twins, responses: Responses) -> tuple[float, ...]:
    """Return how well an encoder's responses predict each twin (`twin_scores`), computed once."""
    return twin_scores(responses.get("public"), twins.components)
