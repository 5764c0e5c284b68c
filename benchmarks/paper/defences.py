"""Cells about defences (section 5.3): similar queries, and extraction detection over histories."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from attacks_for_eval.defences.detection import MEASURES as DETECTORS
from attacks_for_eval.defences.detection import History, HistoryMonitor, alarms
from attacks_for_eval.defences.similarity import nearest, similarity_error_rates
from benchmarks.common.rows import Row
from benchmarks.paper.bench import Bench, data
from benchmarks.paper.cells import Cell
from ownership.encoders.images import as_input, as_uint8, represent
from watermark_training.augment import simclr_view

BENIGN_ALARMS = 0.05
"""Share of an honest user's queries that the monitor may flag; its threshold is set on other images to give this."""


def benign_threshold(bench: Bench, cell: Cell, metric: str) -> float:
    """The threshold that flags `BENIGN_ALARMS` of an honest user's queries, set on images that nothing else uses."""
    victim = bench.victim(cell)
    assert victim.projection_head is not None
    with torch.no_grad():
        z = victim.projection_head(represent(victim.encoder, data("cifar10:train[35000:50000]").images))
    near = torch.cat([nearest(z[i : i + 1], z[:i], metric) for i in range(1, len(z), 10)])  # type: ignore[arg-type]
    return float(near.quantile(BENIGN_ALARMS if metric == "l2" else 1 - BENIGN_ALARMS))


def rates(bench: Bench, cell: Cell) -> tuple[None, Row]:
    """Error rates at the thresholds that give the paper's false positive rates on other images."""
    wanted = {"l2": [0.05, 0.12, 0.28], "cosine": [0.07, 0.155, 0.31]}[cell.box["metric"]]
    victim, generator = bench.victim(cell), torch.Generator().manual_seed(0)

    def vectors(images: Tensor) -> Tensor:
        y = represent(victim.encoder, as_uint8(simclr_view(as_input(images), generator)))
        assert victim.projection_head is not None
        with torch.no_grad():
            z: Tensor = victim.projection_head(y) if cell.box["head"] else y
        return z

    tuning, judging = data("cifar10:train[35000:37000]").images, data("cifar10:test").images
    a, b = vectors(tuning[:1000]), vectors(tuning[1000:])
    metric = cell.box["metric"]
    between = (
        torch.cdist(a, b).flatten() if metric == "l2" else torch.cosine_similarity(a[:, None], b[None], dim=2).flatten()
    )
    between = torch.from_numpy(np.sort(between.numpy()))
    found, (first, second) = [], (vectors(judging), vectors(judging))
    for share in wanted:
        place = share if metric == "l2" else 1 - share
        threshold = float(between[int(place * (len(between) - 1))])
        r = similarity_error_rates(first, second, metric, threshold)
        found.append({"threshold": threshold, "false_positive": r.false_positive, "false_negative": r.false_negative})
    return None, {"rates": found}


def detection(bench: Bench, cell: Cell) -> tuple[None, Row]:
    """Alarms over histories of 1,000 queries: honest users of three classes each, and attackers of five kinds.

    Twenty honest users set the limits, twenty others show the false alarms; every account but the last attacker's is
    alone, so that accounts resemble each other only by their queries.
    """
    victim, generator, n = bench.victim(cell), torch.Generator().manual_seed(0), 1000
    assert victim.projection_head is not None
    threshold = benign_threshold(bench, cell, "cosine")

    def vectors(images: Tensor) -> Tensor:
        assert victim.projection_head is not None
        with torch.no_grad():
            z: Tensor = victim.projection_head(represent(victim.encoder, images))
        return z

    def views(images: Tensor) -> Tensor:
        return as_uint8(simclr_view(as_input(images), generator))

    benign, others = data("cifar10:train[25000:50000]"), data("cifar10:test").images
    assert benign.labels is not None
    x = vectors(benign.images)
    users = []
    for _ in range(40):
        wanted = torch.randperm(10, generator=generator)[:3]
        rows = torch.isin(benign.labels, wanted).nonzero()[:, 0]
        users.append(x[rows[torch.randperm(len(rows), generator=generator)[:n]]])
    attackers = {
        "plain images": [vectors(others[:n])],
        "five views of each of 200 images": [vectors(views(others[:200].repeat(5, 1, 1, 1)))],
        "images of another distribution": [vectors(data("fashion-mnist:train").images[:n])],
        "images of three classes": [users.pop()],
        "views of 1,000 images, an account an epoch": [vectors(views(others[:n])) for _ in range(5)],
    }

    def histories(accounts: list[Tensor]) -> list[History]:
        monitor = HistoryMonitor(metric="cosine", threshold=threshold, center=x.mean(0))
        for i, queries in enumerate(accounts):
            monitor.observe(str(i), queries)
        return [monitor.history(str(i)) for i in range(len(accounts))]

    honest = [histories([user])[0] for user in users]
    limits, rest = honest[:20], honest[20:]
    found = {}
    for name, accounts in attackers.items():
        history = histories(accounts)[-1]
        values = {m: round(history.measure(m), 3) for m in DETECTORS}
        found[name] = {"alarms": list(alarms(history, limits)), **values}
    false = {m: sum(m in alarms(h, limits) for h in rest) / len(rest) for m in DETECTORS}
    return None, {"detection": {"threshold": threshold, "false_alarms": false, "attackers": found}}
