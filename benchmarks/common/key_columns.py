"""The columns of a row that say what the key test found."""

from __future__ import annotations

from benchmarks.common.machine import cpu, versions
from benchmarks.common.rows import Row
from ownership.encoders.images import EncoderLike, represent
from ownership.keyed.drawn import Drawn
from ownership.keyed.readings import Readings, encoder_readings, readings

DECOYS = 99_999

DrawnWithBaselines = tuple[Drawn, list[dict[str, Readings]]]
"""What a key draws, and the readings of its baselines."""


def with_baselines(drawn: Drawn) -> DrawnWithBaselines:
    """Return what a key draws with the readings of its baselines, which serve every encoder."""
    return drawn, [readings(b, drawn.features) for b in drawn.baselines]


def key_columns(key: DrawnWithBaselines, encoder: EncoderLike) -> Row:
    """Return the columns of the key test of an encoder, with 99,999 decoys."""
    drawn, known = key
    of = represent(encoder, drawn.material.probes).double().numpy()
    result = drawn.test(encoder_readings(of, drawn.features), DECOYS, known)
    return {
        "dim": of.shape[1],
        "probes": len(of),
        "pvalue": result.pvalue,
        "statistic": result.statistic,
        "z": {name: m.z for name, m in result.maps.items()},
        "r_squared": {name: m.r_squared for name, m in result.maps.items()},
        "cpu": cpu(),
        "versions": versions(),
    }
