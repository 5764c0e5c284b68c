"""The extraction losses against naive loops; the black box counts; a surrogate approaches its victim."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from support.encoders import encoder

from attacks_for_eval.choices import METHODS, TEMPERED, check_method
from attacks_for_eval.extraction.black_box import BlackBox, BudgetError, Perturbation, query_all
from attacks_for_eval.extraction.config import RELEASED, ExtractionConfig, with_method
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.losses import (
    HEADED,
    LABELED,
    LOSSES,
    REFERENCE_LOSSES,
    infonce_loss,
    unit_l2_loss,
)
from attacks_for_eval.extraction.objectives import RepresentationObjective
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import as_input, as_uint8, represent
from ownership.errors import TrainingError
from ownership.evidence.similarity import linear_cka
from watermark_training.augment import color_view
from watermark_training.data import Data
from watermark_training.device import seeded_architecture
from watermark_training.training import Trained


def _pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 4)) * 3, rng.normal(size=(6, 4)) * 3


def naive_mse(a: np.ndarray, b: np.ndarray) -> float:
    return sum((a[i, j] - b[i, j]) ** 2 for i in range(6) for j in range(4)) / 24


def naive_unit_l2(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = x / math.sqrt(sum(x * x)), y / math.sqrt(sum(y * y))
        total += math.sqrt(sum((x - y) ** 2))
    return total / 6


def naive_infonce(a: np.ndarray, b: np.ndarray) -> float:
    z, total = np.concatenate([a, b]), 0.0
    for i in range(12):
        scores = {
            k: math.exp(float(z[i] @ z[k] / np.linalg.norm(z[i]) / np.linalg.norm(z[k])) / 0.07)
            for k in range(12)
            if k != i
        }
        total -= math.log(scores[(i + 6) % 12] / sum(scores.values()))
    return total / 12


def naive_softnn(a: np.ndarray, b: np.ndarray) -> float:
    """Frosst et al. 2019, equation 1, with the image as the class and T = 100."""
    z, labels, total = np.concatenate([a, b]), list(range(6)) * 2, 0.0
    for i in range(12):
        near = [math.exp(-float(((z[i] - z[k]) ** 2).sum()) / 100) for k in range(12)]
        same = sum(near[k] for k in range(12) if k != i and labels[k] == labels[i])
        total -= math.log(same / sum(near[k] for k in range(12) if k != i))
    return total / 12


def naive_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """SciPy's distance of two histograms on 0, 1, 2, ...; ours is that divided by the number of features."""
    total = 0.0
    for p, q in zip(np.maximum(a, 0), np.maximum(b, 0), strict=True):
        total += wasserstein_distance(range(4), range(4), p, q) / 4
    return total / 6


def naive_barlow(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(4):
        for j in range(4):
            x, y = ((v - v.mean()) / math.sqrt(v.var() + 1e-5) for v in (a[:, i], b[:, j]))
            c = float((x * y).mean())
            total += (1 - c) ** 2 if i == j else 0.0051 * c**2
    return total


LABELS = [0, 1, 0, 2, 2, 0]


def naive_supcon(a: np.ndarray, b: np.ndarray) -> float:
    """Khosla et al. 2020, equation 2: the mean over positives stands outside the logarithm."""
    z = [row / np.linalg.norm(row) for row in np.concatenate([a, b])]
    labels, total = LABELS * 2, 0.0
    for i in range(12):
        scores = {k: math.exp(float(z[i] @ z[k]) / 0.07) for k in range(12) if k != i}
        positives = [k for k in scores if labels[k] == labels[i]]
        total -= sum(math.log(scores[k] / sum(scores.values())) for k in positives) / len(positives)
    return total / 12


def _head(x: torch.Tensor) -> torch.Tensor:
    return x.flip(1) + 0.5


def naive_symmetrized(a: np.ndarray, b: np.ndarray) -> float:
    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    pairs = list(zip(a, b, strict=True))
    return -sum(cosine(s[::-1] + 0.5, v) + cosine(v[::-1] + 0.5, s) for s, v in pairs) / (2 * len(pairs))


ORACLES = {
    "mse": naive_mse,
    "unit_l2": naive_unit_l2,
    "infonce": naive_infonce,
    "softnn": naive_softnn,
    "wasserstein": naive_wasserstein,
    "barlow": naive_barlow,
    "supcon": naive_supcon,
    "symmetrized": naive_symmetrized,
}


def test_every_loss_has_an_oracle() -> None:
    assert set(ORACLES) | {"rda"} == set(LOSSES)  # test_methods.py has that of RDA
    assert set(LOSSES) >= LABELED | HEADED | TEMPERED | set(REFERENCE_LOSSES)


def test_the_temperature_is_passed_on(victim: Encoder) -> None:
    a, b = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    config = ExtractionConfig(loss="infonce", arch="tiny", temperature=0.5)
    ours = RepresentationObjective(config, 64, torch.Generator())(a, b, None)
    assert ours == infonce_loss(a, b, 0.5) != infonce_loss(a, b)


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_losses_are_the_naive_loops(name: str) -> None:
    a, b = _pair()
    a[:, 0] = np.abs(a[:, 0])  # Wasserstein reads rows as histograms: something must be positive
    b[:, 2] = np.abs(b[:, 2])
    extra: list[object] = [torch.tensor(LABELS)] if name in LABELED else [_head] if name in HEADED else []
    ours = LOSSES[name](torch.from_numpy(a), torch.from_numpy(b), *extra).item()
    assert ours == pytest.approx(ORACLES[name](a, b), rel=1e-5)


def test_black_box_counts_every_response(victim: Encoder, digits: Data) -> None:
    box = BlackBox(victim)
    box(digits.images[:10])
    box(digits.images[:10])
    assert (box.queries, box.unique_images) == (20, 10)


def test_perturbation(victim: Encoder, digits: Data) -> None:
    x = digits.images[:50]
    plain = BlackBox(victim)(x)
    torch.testing.assert_close(BlackBox(victim, perturbation=Perturbation(decimals=2))(x), (plain * 100).round() / 100)
    torch.testing.assert_close(BlackBox(victim, perturbation=Perturbation(dims=5))(x), plain[:, :5])
    noisy = BlackBox(victim, perturbation=Perturbation(noise=2.0, noise_mean=10.0))
    difference = noisy(x) - plain
    assert abs(float(difference.mean()) - 10) < 0.2
    assert abs(float(difference.std()) - 2) < 0.1
    assert not torch.allclose(noisy(x), plain + difference)  # drawn again: averaging helps the attacker


def test_a_used_up_budget_keeps_the_responses(victim: Encoder, digits: Data, tmp_path: Path) -> None:
    store = tmp_path / "responses.sqlite"
    with pytest.raises(BudgetError, match="30 answered, 10 more needed"):
        query_all(BlackBox(victim, budget=35, store=store), digits.images[:80], chunk=10)
    session = []

    def watched(images: torch.Tensor) -> torch.Tensor:
        session.append(len(images))
        return victim(images)

    richer = BlackBox(watched, budget=80, store=store)
    assert (richer.queries, richer.unique_images) == (30, 30)
    responses = query_all(richer, digits.images[:80], chunk=25)
    assert (sum(session), richer.queries) == (50, 80)
    torch.testing.assert_close(responses, represent(victim, digits.images[:80]))
    with pytest.raises(TrainingError, match="another victim"):
        BlackBox(victim, name="other", store=store)
    store.write_bytes(b"broken" * 999)
    with pytest.raises(TrainingError, match="damaged"):
        BlackBox(victim, store=store)


def test_responses_survive_an_interruption(victim: Encoder, digits: Data, tmp_path: Path) -> None:
    """The same seed sends the same queries, augmented ones too; those with a stored response are not sent again."""
    config = ExtractionConfig(arch="tiny", queries=64, epochs=3, batch_size=32, victim_view="standard")
    whole = BlackBox(victim)
    unbroken = extract(whole, digits.images, config)
    answered = 0

    def dying(images: torch.Tensor) -> torch.Tensor:
        nonlocal answered
        if answered >= 100:
            raise ConnectionError("gone")
        answered += len(images)
        return victim(images)

    store = tmp_path / "responses.sqlite"
    with pytest.raises(ConnectionError):
        extract(BlackBox(dying, store=store), digits.images, config)
    resumed = BlackBox(victim, store=store)
    assert resumed.queries == answered == 128
    again = extract(resumed, digits.images, config)
    assert (resumed.queries, resumed.unique_images) == (whole.queries, whole.unique_images) == (192, 192)
    for x, y in zip(unbroken.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y)


def test_a_victim_that_changes_between_runs_is_one_clear_line(victim: Encoder, digits: Data, tmp_path: Path) -> None:
    store = tmp_path / "responses.sqlite"
    query_all(BlackBox(victim, store=store), digits.images[:20])
    with pytest.raises(TrainingError, match="32 dimensions, 64 before"):
        query_all(BlackBox(victim, perturbation=Perturbation(dims=32), store=store), digits.images[:40])
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be used"):
        query_all(BlackBox(victim, store=tmp_path / "file/responses.sqlite"), digits.images[:20])


def test_averaging_takes_noise_off(victim: Encoder, digits: Data, tmp_path: Path) -> None:
    x = digits.images[:40]
    plain = represent(victim, x)
    noisy = BlackBox(victim, perturbation=Perturbation(noise=1.0), store=tmp_path / "responses.sqlite")
    averaged = query_all(noisy, x, repeats=25)
    assert (noisy.queries, noisy.unique_images) == (1000, 40)
    assert float((averaged - plain).std()) == pytest.approx(0.2, rel=0.1)  # 1 / sqrt(25)
    kept = BlackBox(victim, perturbation=Perturbation(noise=1.0), store=tmp_path / "responses.sqlite")
    torch.testing.assert_close(query_all(kept, x, repeats=25), averaged)
    assert kept.queries == 1000


def test_malformed_responses_are_refused(digits: Data) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        query_all(BlackBox(lambda x: torch.full((len(x), 3), torch.nan)), digits.images[:9])
    with pytest.raises(TrainingError, match="answered"):
        query_all(BlackBox(lambda x: x), digits.images[:9])


def test_views_decide_the_number_of_queries(trained: Trained, digits: Data) -> None:
    common = {"arch": "tiny", "queries": 64, "epochs": 3, "batch_size": 32}
    for view, spent, unique in (("none", 64, 64), ("standard", 192, 192), ("rotation", 192, 192)):
        box = BlackBox(trained.encoder)
        extract(box, digits.images, ExtractionConfig(**common, victim_view=view))  # type: ignore[arg-type]
        assert (box.queries, box.unique_images) == (spent, unique)
    rotation_invariant = BlackBox(trained.encoder)
    extract(rotation_invariant, digits.images, ExtractionConfig(**common, surrogate_view="rotation"))  # type: ignore[arg-type]
    assert rotation_invariant.queries == 64


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"barlow", "wasserstein"}))
def test_a_surrogate_comes_closer_to_its_victim(loss: str, trained: Trained, digits: Data) -> None:
    box = BlackBox(trained.encoder)
    config = ExtractionConfig(loss=loss, arch="tiny", queries=512, epochs=20, batch_size=64, lr=2e-3)
    assert digits.labels is not None
    surrogate = extract(box, digits.images[:600], config, labels=digits.labels[:600])
    assert box.queries == 512
    held_out = digits.images[600:900]
    responses = represent(trained.encoder, held_out).double().numpy()

    def similarity(e: Encoder) -> float:
        return linear_cka(represent(e, held_out).double().numpy(), responses)

    assert similarity(surrogate) > (0.8 if loss in REFERENCE_LOSSES else 0.5)
    assert similarity(surrogate) > similarity(encoder(4)) + 0.1


def test_defaults_are_the_released_codes_by_loss(victim: Encoder, digits: Data) -> None:
    """Its optimiser, rate and batch where nothing is said; Adam with the rate that is said."""
    assert set(RELEASED) == set(LOSSES)
    config = ExtractionConfig(loss="infonce", arch="tiny", queries=300, epochs=1)
    said = replace(config, lr=3e-4, batch_size=256)
    a, b = (extract(BlackBox(victim), digits.images, c) for c in (config, said))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    sgd = ExtractionConfig(loss="unit_l2", arch="tiny", queries=64, epochs=1, weight_decay=0.0)
    steps: list[int] = []
    slow = extract(BlackBox(victim), digits.images, sgd, progress=lambda what, done, total: steps.append(total))
    assert steps[-1] == 1  # one batch of 64
    fast = extract(BlackBox(victim), digits.images, replace(sgd, lr=1e-3))
    start = seeded_start(sgd)
    moved_by_sgd, moved_by_adam = (float((e.state_dict()[NAME] - start).abs().max()) for e in (slow, fast))
    assert 0 < moved_by_sgd < 0.9 * moved_by_adam == pytest.approx(0.9e-3, rel=0.01)  # Adam's first step is its rate


NAME = "body.0.weight"


def seeded_start(config: ExtractionConfig) -> torch.Tensor:
    """The first layer's weights before training."""
    generator = torch.Generator().manual_seed(config.seed)
    torch.randperm(1797, generator=generator)
    return seeded_architecture(config.arch, generator).state_dict()[NAME]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_are_configurations(method: str) -> None:
    config = with_method(ExtractionConfig(loss="infonce", queries=99), method)
    assert config.queries == 99
    assert {name: getattr(config, name) for name in METHODS[method]} == METHODS[method]
    check_method(method, METHODS[method])
    for name, value in METHODS[method].items():
        with pytest.raises(TrainingError, match=f"{method} means {name}"):
            check_method(method, {name: not value})


@pytest.mark.parametrize("method", ["stolen-encoder", "cont-steal", "rotated-queries", "rotation-invariant"])
def test_later_methods_come_closer_to_their_victim(method: str, trained: Trained, digits: Data) -> None:
    epochs = 60 if method == "rotation-invariant" else 15  # the harder problem
    config = with_method(ExtractionConfig(arch="tiny", queries=512, epochs=epochs, batch_size=64, lr=2e-3), method)
    surrogate = extract(BlackBox(trained.encoder), digits.images[:600], config)
    held_out = digits.images[600:900]
    responses = represent(trained.encoder, held_out).double().numpy()
    encoders = (surrogate, encoder(4))
    extracted, independent = (linear_cka(represent(e, held_out).double().numpy(), responses) for e in encoders)
    assert extracted > independent + (0.05 if method == "rotation-invariant" else 0.1)  # which loses similarity


def test_stolen_encoder_pulls_views_to_the_response_to_the_image(trained: Trained, digits: Data) -> None:
    """Its second term pulls the representation of a mirrored, recolored image to that of the image itself."""
    base = ExtractionConfig(arch="tiny", queries=512, epochs=15, batch_size=64, lr=2e-3, loss="unit_l2")
    generator = torch.Generator().manual_seed(0)
    held_out = digits.images[600:900]
    views = as_uint8(color_view(as_input(held_out), generator))

    def moved(config: ExtractionConfig) -> float:
        e = extract(BlackBox(trained.encoder), digits.images[:600], config)
        return float(unit_l2_loss(represent(e, views), represent(e, held_out)))

    assert moved(with_method(base, "stolen-encoder")) < 0.8 * moved(base)


def test_queries_from_another_distribution(trained: Trained, digits: Data) -> None:
    """Any images will do as questions: noise says less about the digits than digits do, but not nothing."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (512, 1, 16, 16), dtype=torch.uint8, generator=generator)
    held_out = digits.images[600:900]
    responses = represent(trained.encoder, held_out).double().numpy()
    config = ExtractionConfig(arch="tiny", queries=512, epochs=15, batch_size=64, lr=2e-3)
    from_noise, from_digits = (
        linear_cka(represent(extract(BlackBox(trained.encoder), x, config), held_out).double().numpy(), responses)
        for x in (noise, digits.images[:600])
    )
    assert 0.1 < from_noise < from_digits


def test_an_extraction_repeats_by_seed(victim: Encoder, digits: Data) -> None:
    config = ExtractionConfig(arch="tiny", queries=64, epochs=1, batch_size=32)
    a, b = (extract(BlackBox(victim), digits.images, config) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_failed_extractions_are_reported(victim: Encoder, digits: Data) -> None:
    with pytest.raises(TrainingError, match="queries from"):
        extract(BlackBox(victim), digits.images[:9], ExtractionConfig(arch="tiny", queries=10))
    with pytest.raises(TrainingError, match="small have 128 dimensions"):
        extract(BlackBox(victim), digits.images, ExtractionConfig(arch="small", queries=10))
    with pytest.raises(TrainingError, match="needs labels"):
        extract(BlackBox(victim), digits.images, ExtractionConfig(arch="tiny", queries=10, loss="supcon"))
    for change in (
        {"loss": "magic"},
        {"arch": "magic"},
        {"victim_view": "magic"},
        {"epochs": 0},
        {"lr": 0.0},
        {"repeats": 0},
        {"temperature": 0.5},
        {"loss": "infonce", "temperature": 0.0},
        {"view_weight": -1.0},
    ):
        with pytest.raises(TrainingError):
            ExtractionConfig(**change)  # type: ignore[arg-type]
