"""The records of a report, made from a claim and a suspect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ownership.attestation.beacon import BeaconRound
from ownership.attestation.timestamps import Timestamp
from ownership.claims.claim import Claim
from ownership.io.text import printable
from ownership.reports.claim_text import seal_record
from ownership.suspects.sandbox.encoder import SandboxedEncoder
from ownership.suspects.suspect import Suspect
from ownership.verdict.records import (
    AuditOptions,
    BeaconRecord,
    ClaimRecord,
    EncoderEntry,
    KeyRecord,
    SuspectRecord,
    TimestampRecord,
    TwinsRecord,
    VictimRecord,
)


def claim_record(claim: Claim) -> ClaimRecord:
    """Return what a report records of a claim."""
    channels, height, width = claim.probes["public"].shape[1:]
    victim = claim.victim
    return ClaimRecord(
        sha256=claim.sha256,
        victim=VictimRecord(sha256=victim.sha256, architecture=victim.architecture, dim=victim.dim),
        panel=tuple(
            EncoderEntry(
                name=m.name,
                kind=m.kind,
                sha256=m.sha256,
                watermark=m.watermark,
                data=m.data,
                trained_on_private=m.trained_on_private,
            )
            for m in claim.members
        ),
        references=tuple(m.name for m in claim.references),
        dropped=tuple(claim.dropped),
        key=_key_record(claim),
        twins=_twins_record(claim),
        watermark=claim.watermark is not None,
        probes={name: len(images) for name, images in sorted(claim.probes.items())},
        image_size=(channels, height, width),
        redaction=tuple(claim.redaction.parts),
        seal=seal_record(claim.seal),
    )


def _key_record(claim: Claim) -> KeyRecord | None:
    if claim.material is None:
        return None
    key, anchor = claim.material.key, claim.anchor
    return KeyRecord(
        commitment_sha256=key.commitment_sha256,
        probes=key.probes,
        pool_sha256=key.pool.sha256,
        pool_images=key.pool.images,
        directions=key.directions,
        feature_encoder_sha256=None if key.features is None else key.features.encoder_sha256,
        keys_tried=claim.keys_tried,
        anchor=None if anchor is None else _timestamp_record(anchor),
        beacon=_beacon_record(key.beacon),
    )


def _twins_record(claim: Claim) -> TwinsRecord | None:
    if claim.twins is None:
        return None
    anchor = claim.twins_anchor
    return TwinsRecord(
        commitment_sha256=claim.twins.commitment.commitment_sha256,
        twins=len(claim.twins.files),
        picked=claim.twins.picked,
        tried=claim.twins_tried,
        anchor=None if anchor is None else _timestamp_record(anchor),
        beacon=_beacon_record(claim.twins.commitment.beacon),
    )


def _beacon_record(of: BeaconRound | None) -> BeaconRecord | None:
    if of is None:
        return None
    return BeaconRecord(name=of.chain.name, chain_sha256=of.chain.sha256, round=of.number, time=of.time.isoformat())


def _timestamp_record(of: Timestamp) -> TimestampRecord:
    return TimestampRecord(authority=of.authority, time=of.time.isoformat(), trusted=of.trusted)


def suspect_record(suspect: Suspect, claim: Claim, dim: int | None) -> SuspectRecord:
    """Return what a report records of a suspect, once it was queried.

    Args:
        suspect: The suspect.
        claim: The claim, whose probes may have been resized for it.
        dim: Length of its representations; None if it returned none.
    """
    details = suspect.details()  # an endpoint has a digest only now
    return SuspectRecord(
        name=suspect.name,
        format=suspect.format,
        sha256=details.get("sha256", suspect.sha256),
        size_bytes=details.get("bytes", suspect.size),
        architecture=suspect.architecture,
        dim=dim,
        output_kind=suspect.output_kind,
        resized_to=suspect.resizes(tuple(claim.probes["public"].shape)),
        preprocessing=suspect.preprocess.name,
        preprocessing_from=suspect.preprocess_from,
        choices=suspect.chosen,
        entry=None if suspect.entry is None else printable(suspect.entry, 200),
        files=suspect.files,
        sandbox=suspect.layers,
        host=details.get("host"),
        api=details.get("api"),
        model=details.get("model"),
        probes_sha256=details.get("probes_sha256"),
    )


def options_record(options: AuditOptions, suspect: Suspect, tried: Sequence[Suspect]) -> AuditOptions:
    """Return the options of an audit as they were applied: what the suspect was loaded with counts."""
    details = suspect.details()
    made = replace(
        options,
        preprocessings=tuple(dict.fromkeys(s.preprocess.name for s in tried)),
        output_kind=suspect.output_kind,
        api=details.get("api"),
        model=details.get("model"),
    )
    if not isinstance(suspect.encoder, SandboxedEncoder):
        return made
    loaded = suspect.encoder.options
    entry = None if suspect.entries else loaded.entry
    return replace(made, arch=loaded.arch, entry=entry, onnx_output=loaded.output, pooling=loaded.pooling)
