"""Victims, surrogates and independent encoders as in `benchmarks.key_verdicts`, with keys of more probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from attacks_for_eval.evaluation.factory import ModelFactory
from attacks_for_eval.evaluation.spec import ModelSpec
from attacks_for_eval.evasion.attacker import Attacker
from benchmarks.evasion.design import EVASIONS, KNOWN, QUERY_TIME, REVIEWED, WEIGHTS, Remembered, Subject
from benchmarks.evasion.utility import Labeled
from benchmarks.key_verdicts.bench import Bench, drawn
from benchmarks.key_verdicts.design import surrogates
from benchmarks.verdicts import suspects
from benchmarks.verdicts.design import Scale
from ownership.encoders.images import EncoderLike
from ownership.suspects.suspect import load_encoder
from watermark_training.data import load_data
from watermark_training.loaded_encoder import load_trained

INDEPENDENTS = 3
"""Independent encoders of a victim that all evasions are put in front of."""
PRICED = 1
"""Surrogates of a victim that all evasions are put in front of; the others have `REVIEWED`, without utility."""


class ManyProbes(Bench):
    """The key's benchmark, where every victim's key has all 9,000 public images as probes, not 1,800.

    Columns that an attacker appends cost the test a degree of freedom each (docs/adr/0039). Victims share these images;
    no model is trained on them.
    """

    def __init__(self, scale: Scale, work: Path, victims: Sequence[int] = ()) -> None:
        super().__init__(scale, work, victims)
        public = load_data(f"{scale.data}:test[1000:]")
        self.sources |= {f"public_{victim}": public for victim in scale.indices}

    def make_victim(self, victim: int) -> None:
        """Train a victim unless it is there."""
        self.factory.make(self.scale.checkpoint)
        if not (self.folder(victim) / "encoder.safetensors").exists():
            self.train_victim(victim)


class VerdictCase:
    """A victim, its key, and the encoders that its key tests. There is no panel yet: it costs 16 trainings."""

    panel = None

    def __init__(self, bench: ManyProbes, victim: int) -> None:
        bench.make_victim(victim)
        self.bench, self.victim, self.key = bench, victim, drawn(bench, victim)
        self.victim_encoder = load_trained(bench.folder(victim)).encoder
        self.labeled = _labeled(bench, "probe-learn"), _labeled(bench, "probe-test")

    def subjects(self) -> Iterator[Subject]:
        """Yield the victim itself, its plain surrogates, and some independent encoders."""
        bench, factory = self.bench, self.bench.factory_of(self.victim)
        plain = list(suspects.surrogates(bench.scale, self.victim))
        yield self._subject(factory, plain[0], "victim", Remembered(self.victim_encoder), "victim")
        for i, spec in enumerate(plain):
            subject = self._subject(factory, spec, "surrogate", Remembered(load_encoder(factory.make(spec)).encoder))
            yield subject if i < PRICED else replace(subject, evasions=REVIEWED, priced=False)
        yield from self._trained(factory, plain[0])
        specs = [s for s in suspects.independents(bench.scale, bench.checkpoint.name) if not s.base_checkpoint]
        step = max(1, len(specs) // (INDEPENDENTS * len(bench.scale.indices)))
        for spec in specs[self.victim * step :: step * len(bench.scale.indices)][:INDEPENDENTS]:
            encoder = Remembered(load_encoder(bench.factory.make(spec)).encoder)
            yield self._subject(factory, spec, "independent", encoder, attacker=plain[0])

    def _trained(self, factory: ModelFactory, first: ModelSpec) -> Iterator[Subject]:
        """Yield the surrogates of evasive methods, and victim and first surrogate for the evasions of weights."""
        scale = self.bench.scale
        specs = [
            suspects.surrogate(scale, self.victim, method, 80 + i, loss=loss, method=method)
            for i, (method, loss) in enumerate(QUERY_TIME)
        ]
        made = [task.spec for task in surrogates(scale, self.victim) if not task.spec.weight_transforms]
        specs += [s for s in made if (s.method, s.loss) in KNOWN and s.epochs == scale.extraction_epochs]
        for spec in specs:
            encoder = Remembered(load_encoder(factory.make(spec)).encoder)
            yield self._subject(factory, spec, "query-time", encoder, f"{spec.method}, {spec.loss}", evasions=())
        grown = self.bench.checkpoint if self.victim in self.bench.scale.fine_tuned else None
        own = replace(
            first, role="independent", objective="simclr", arch="small", base_checkpoint=grown.name if grown else ""
        )
        data = factory.chosen(first)
        attacker = Attacker(
            images=data.images,
            labels=data.labels,
            encoder=lambda: load_encoder(factory.make(own)).encoder,
            checkpoint=(lambda: load_encoder(grown).encoder) if grown else None,
            seed=first.seed,
        )
        alone = tuple(e for e in WEIGHTS if not e.startswith(("merge", "ties")))
        surrogate = load_encoder(factory.make(first)).encoder
        for role, name, copy in (("victim", "victim", self.victim_encoder), ("surrogate", _name(first), surrogate)):
            subject = self._subject(factory, first, role, copy, name)
            evasions = WEIGHTS if grown and role == "victim" else alone
            yield replace(subject, attacker=attacker, evasions=evasions)

    def _subject(
        self,
        factory: ModelFactory,
        spec: ModelSpec,
        role: str,
        encoder: EncoderLike,
        name: str = "",
        attacker: ModelSpec | None = None,
        evasions: tuple[str, ...] = EVASIONS,
    ) -> Subject:
        of = attacker or spec
        data = factory.chosen(of)
        other = replace(of, role="independent", objective="simclr", watermark="none", base_checkpoint="", arch="small")
        own = cache(lambda: Remembered(load_encoder(factory.make(other)).encoder))
        return Subject(
            name=name or _name(spec),
            role=role,
            of=f"victim {self.victim}",
            encoder=encoder,
            attacker=Attacker(images=data.images, encoder=own, seed=of.seed),
            evasions=evasions,
        )


def _name(spec: ModelSpec) -> str:
    return f"{spec.kind}, {spec.method}, {spec.loss}, {spec.images}, seed {spec.seed}"


def _labeled(bench: Bench, part: str) -> Labeled:
    data = bench.sources[part]
    labels: Tensor = data.labels if data.labels is not None else torch.empty(0)
    return data.images, labels
