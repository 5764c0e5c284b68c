"""What a report records of its claim, its suspect and the options of the audit: data, typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """The options of an audit. `reproduce` reads them from the report, so that it repeats the same audit."""

    stop_early: bool = False  # query in batches and stop at the first interim analysis that supports the claim
    paper_tests: bool = False  # add the tests of the paper; they never decide
    preprocessings: tuple[str, ...] = ()  # names of those to try, each at its share of alpha; empty: the suspect's own
    arch: str | None = None  # architecture of bare weights; None: inferred from the weights
    entry: str | None = None  # entry of a checkpoint that is the encoder; None: every one that fits was tried
    onnx_output: str | None = None  # name or position of the output that is the representation; None: the only one
    pooling: str = "auto"  # of models that return tokens or maps
    output_kind: str = "representations"  # what the suspect returns, as declared
    api: Literal["turnmark", "openai", "base64"] | None = None  # protocol of an endpoint; None: it is none
    model: str | None = None  # model that an endpoint is asked for
    pool_seed: int | None = None  # draws which images of the key's pool were asked; None: it was not asked
    published: str | None = None  # time from which the suspect is known to exist, as stated; ISO, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class VictimRecord:
    """The claim's victim."""

    sha256: str
    architecture: str | None
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderEntry:
    """One member of the reference panel, as the claim describes it."""

    name: str
    kind: str  # its stratum
    sha256: str
    watermark: str | None  # None: unknown
    data: str | None  # training data, in words; None: unknown
    trained_on_private: bool | None  # None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampRecord:
    """One timestamp of a seal."""

    authority: str
    time: str  # ISO, UTC
    trusted: bool  # whether it chains to a root certificate that the auditor gave


@dataclass(frozen=True, slots=True, kw_only=True)
class SealRecord:
    """The seal of a claim."""

    public_key_sha256: str
    root: str  # of the Merkle tree, hexadecimal
    timestamps: tuple[TimestampRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconRecord:
    """A round of a public randomness beacon."""

    name: str  # of the beacon
    chain_sha256: str
    round: int
    time: str  # when it is signed; ISO, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """The key of a claim, without its secret."""

    commitment_sha256: str
    probes: int  # that it draws from its pool
    pool_sha256: str
    pool_images: int
    directions: int  # marked directions of each feature map
    feature_encoder_sha256: str | None  # encoder whose features the invariant map is made of; None: a random network
    keys_tried: int  # commitments that the owner declares to have made for this victim
    anchor: TimestampRecord | None  # None: not anchored
    beacon: BeaconRecord | None  # round that the key follows from; None: of no beacon


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinsRecord:
    """The twins of a claim."""

    commitment_sha256: str
    twins: int  # encoders that were committed to
    picked: int  # index of the one that was picked: the victim
    tried: int  # picks that the owner declares to have had made for this victim
    anchor: TimestampRecord | None  # None: not timestamped; then a beacon picked
    beacon: BeaconRecord | None  # round that picked; None: the anchor did

    @property
    def bound(self) -> bool:
        """Whether the owner cannot have picked: a trusted authority did, or a round after it stamped."""
        if self.anchor is None or not self.anchor.trusted:
            return False
        return self.beacon is None or stamped_before(self.anchor, self.beacon)


def stamped_before(anchor: TimestampRecord, beacon: BeaconRecord) -> bool:
    """Return whether a commitment was stamped before the round that it names was signed."""
    return datetime.fromisoformat(anchor.time) < datetime.fromisoformat(beacon.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    """The claim that an audit tested against."""

    sha256: str  # empty: the claim was never saved
    victim: VictimRecord
    panel: tuple[EncoderEntry, ...]
    references: tuple[str, ...]  # names of the reference surrogates
    dropped: tuple[str, ...]  # encoders left out of the panel, each with the reason
    watermark: bool  # whether it holds a predictor of a rotation watermark
    probes: dict[str, int]  # probe set -> number of images
    image_size: tuple[int, int, int]  # channels, height, width
    redaction: tuple[str, ...]  # parts that its owner withheld
    seal: SealRecord | None  # None: not sealed
    key: KeyRecord | None = None  # of the keyed watermark
    twins: TwinsRecord | None = None  # None: no twins were committed to


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectRecord:
    """The suspect of an audit."""

    name: str
    format: str  # safetensors, pytorch, onnx, torch.export, torchscript, recorded, endpoint
    sha256: str  # of the file, of the recorded rows, or of an endpoint's transcript
    size_bytes: int
    architecture: str | None  # of bare weights
    dim: int | None  # of a representation; None: it returned none
    output_kind: str = "representations"  # as declared
    resized_to: tuple[int, int] | None = None  # height and width that probes were resized to for it
    preprocessing: str = "none"
    preprocessing_from: Literal["option", "files", "library", "assumed"] = "files"  # why it is this one
    choices: dict[str, str] = field(
        default_factory=dict
    )  # what was chosen of its output: "output", "pooling", "batch", "left_aside"
    entry: str | None = None  # of its checkpoint; None: there is only one
    entries_tried: tuple[str, ...] = ()  # where several were tried; `entry` is the one reported
    preprocessings_tried: tuple[str, ...] = ()  # where several were tried; `preprocessing` is the one reported
    files: dict[str, str] = field(default_factory=dict)  # name -> SHA-256, where there are several
    sandbox: dict[str, str] | None = None  # isolation layer -> mechanism; None: it ran in the auditor's process
    host: str | None = None  # of an endpoint
    api: str | None = None  # of an endpoint
    model: str | None = None  # of an endpoint
    probes_sha256: str | None = None  # of recorded representations: digest of the probe folder
