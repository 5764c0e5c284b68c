"""Put evasions in front of victims, surrogates and independent encoders, make the key test, measure utility.

    python -m benchmarks.evasion run --data digits                                     # minutes; trains its models
    TURNMARK_DATA=runs/data python -m benchmarks.evasion run --data fashion-mnist --work runs/evasion
    ... --data cifar10 --victims 0                                                     # only these victims

The models of Fashion-MNIST and CIFAR-10 are made as in `benchmarks.key_verdicts`, but the keys have 9,000 probes, not
1,800. Models in the folder are not made again, rows of the same configuration are never measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from attacks_for_eval.evasion.apply import evade
from benchmarks.common.key_columns import key_columns
from benchmarks.common.rows import Row, RowStore
from benchmarks.evasion.design import Subject
from benchmarks.evasion.digits import SEEDS, DigitsCase
from benchmarks.evasion.key_verdicts import ManyProbes, VerdictCase
from benchmarks.evasion.panel import MEMBERS, PROBES
from benchmarks.evasion.utility import utilities, victim_share
from benchmarks.verdicts.design import SCALES
from ownership.encoders.images import represent
from ownership.io.canonical import canonical_json, sha256

ROWS = RowStore("evasion", compressed=True)


def rows_of(data: str, subject: Subject, case: DigitsCase | VerdictCase) -> Iterator[Row]:
    """Yield the missing rows of a subject: one without an evasion, and one for each evasion."""
    probes = case.key[0].material.probes
    done = {row["key"] for row in ROWS.load()}
    for evasion in ("", *subject.evasions):
        configured = {"data": data, "of": subject.of, "name": subject.name, "evasion": evasion, "probes": len(probes)}
        if case.panel is not None:
            configured["members"] = MEMBERS
        name = sha256(canonical_json({**configured, "priced": subject.priced}))[:16]
        if name in done:
            continue
        shown = evade(subject.encoder, evasion, subject.attacker) if evasion else subject.encoder
        row = {"key": name, **configured, "role": subject.role, **key_columns(case.key, shown)}
        if case.panel is not None:
            row |= case.panel.columns(represent(shown, probes[:PROBES]))
        if not evasion:
            row["victim_share"] = victim_share(represent(shown, probes), represent(case.victim_encoder, probes))
        yield row | (utilities(shown, *case.labeled) if subject.priced else {})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("--data", choices=("digits", *SCALES), default="digits")
    parser.add_argument("--work", type=Path, default=Path("runs/evasion"), help="folder of the models")
    parser.add_argument("--victims", nargs="+", type=int, default=[], help="all victims if not given; digits: seeds")


def run(arguments: argparse.Namespace) -> None:
    """Measure what has no row."""
    cases: Iterator[DigitsCase | VerdictCase]
    if arguments.data == "digits":
        cases = (DigitsCase(seed) for seed in arguments.victims or SEEDS)
    else:
        bench = ManyProbes(SCALES[arguments.data], arguments.work, arguments.victims)
        cases = (VerdictCase(bench, victim) for victim in bench.victims)
    for case in cases:
        for subject in case.subjects():
            found = []
            for row in rows_of(arguments.data, subject, case):
                found.append(row)
                linear = f"{100 * row['linear']:.1f} %" if "linear" in row else ""
                shown = f"{subject.of:12s}{subject.role:12s}{subject.name[:40]:42s}{row['evasion']:32s}"
                print(f"{shown} p {row['pvalue']:.5f}  {linear}", flush=True)
            ROWS.replace(found, lambda row: str(row["key"]))
