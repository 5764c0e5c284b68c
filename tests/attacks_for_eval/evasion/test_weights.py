"""Evasions that change weights, against naive loops over single weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from attacks_for_eval.evasion.apply import evade
from attacks_for_eval.evasion.attacker import Attacker
from attacks_for_eval.evasion.merging import merge, settled, ties
from attacks_for_eval.evasion.retraining import RHO, _ascend_and_differentiate, attention_maps, lora, wrk
from attacks_for_eval.evasion.weights import drop_channels, matrices
from ownership.encoders.architectures import Encoder, make_encoder
from ownership.encoders.images import as_input, represent, three_channels
from ownership.errors import TrainingError
from watermark_training.data import Data
from watermark_training.training import Trained


def made(seed: int, arch: str = "tiny") -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_encoder(arch).eval()


@pytest.fixture(scope="module")
def attacker(digits: Data) -> Attacker:
    assert digits.labels is not None
    images, labels = digits.images[600:900], digits.labels[600:900]
    own, base = made(5), made(6)
    return Attacker(images=images, labels=labels, encoder=lambda: own, checkpoint=lambda: base, seed=3)


def test_a_merged_weight_lies_between_those_of_surrogate_and_checkpoint(trained: Trained, attacker: Attacker) -> None:
    merged, base = merge(trained.encoder, attacker, 30), attacker.own_checkpoint()
    assert isinstance(base, Encoder)
    for p, a, b in zip(merged.parameters(), trained.encoder.parameters(), base.parameters(), strict=True):
        torch.testing.assert_close(p, 0.7 * a + 0.3 * b)


def test_ties_keeps_the_largest_changes_elects_signs_and_averages(trained: Trained, attacker: Attacker) -> None:
    own, base = attacker.own_encoder(), attacker.own_checkpoint()
    assert isinstance(own, Encoder)
    assert isinstance(base, Encoder)
    merged = ties(trained.encoder, attacker, 40)
    name, p = next((n, p) for n, p in merged.named_parameters() if p.ndim > 1)
    known = [e.get_parameter(name).detach().flatten().tolist() for e in (trained.encoder, own, base)]
    changes = [[a - b for a, b in zip(x, known[2], strict=True)] for x in known[:2]]
    limits = [sorted((abs(c) for c in one), reverse=True)[round(0.4 * len(one)) - 1] for one in changes]
    for i, found in enumerate(p.flatten().tolist()):
        kept = [one[i] if abs(one[i]) >= limit else 0.0 for one, limit in zip(changes, limits, strict=True)]
        agreeing = [c for c in kept if c * sum(kept) > 0]
        mean = sum(agreeing) / len(agreeing) if agreeing else 0.0
        assert found == pytest.approx(known[2][i] + mean, abs=1e-6)


def test_settled_statistics_are_those_of_the_images(trained: Trained, attacker: Attacker) -> None:
    out = copy.deepcopy(trained.encoder)
    images = attacker.own_images()[:200]
    settled(out, images)
    first = next(m for m in out.modules() if isinstance(m, nn.BatchNorm2d))
    conv = next(m for m in out.modules() if isinstance(m, nn.Conv2d))
    planes = conv((three_channels(as_input(images)) - out.mean) / out.std)
    assert first.running_mean is not None
    torch.testing.assert_close(first.running_mean, planes.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert first.momentum == 0.1


@pytest.mark.parametrize("chain", ["merge", "ties"])
def test_encoders_of_another_architecture_are_not_merged(chain: str, trained: Trained, attacker: Attacker) -> None:
    other = made(1, "small")
    with pytest.raises(TrainingError, match="architecture"):
        evade(trained.encoder, chain, Attacker(images=attacker.images, encoder=lambda: other, checkpoint=lambda: other))


@torch.no_grad()
def test_channels_with_a_large_lipschitz_bound_are_zeroed(trained: Trained, attacker: Attacker) -> None:
    """A naive loop: the largest singular value of each channel's kernel, times the normalization's factor."""
    out = drop_channels(trained.encoder, attacker, 1)
    layers = [m for m in trained.encoder.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    after = [m for m in out.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    conv, norm = layers[0], layers[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    bounds = []
    for i in range(conv.out_channels):
        factor = float(norm.weight[i].abs() / (norm.running_var[i] + norm.eps).sqrt())
        bounds.append(float(torch.linalg.svdvals(conv.weight[i].flatten(1))[0]) * factor)
    mean = sum(bounds) / len(bounds)
    sd = (sum((b - mean) ** 2 for b in bounds) / (len(bounds) - 1)) ** 0.5
    zeroed = [b > mean + sd for b in bounds]
    assert any(zeroed)
    assert [float(w) == 0 for w in after[1].weight] == zeroed


def test_lora_changes_each_matrix_by_rank_eight_and_nothing_else(trained: Trained, attacker: Attacker) -> None:
    out = lora(trained.encoder, attacker, 1)
    assert [n for n, _ in out.named_parameters()] == [n for n, _ in trained.encoder.named_parameters()]
    changed = 0
    for (_, a), (_, b) in zip(out.named_parameters(), trained.encoder.named_parameters(), strict=True):
        if a.ndim < 2:
            torch.testing.assert_close(a, b)
            continue
        change = (a - b).detach().flatten(1)
        changed += bool(change.abs().max() > 0)
        assert int(torch.linalg.matrix_rank(change, atol=1e-6)) <= 8
    assert changed > 2


def test_sharpness_aware_gradients_are_those_at_the_worst_point() -> None:
    """f(x) = |A x|^2 / 2 has gradient A'A x; the worst point lies rho along it."""
    a, x = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), nn.Parameter(torch.tensor([1.0, -2.0]))

    def loss() -> torch.Tensor:
        return (a @ x).square().sum() / 2

    loss().backward()
    uphill = a.T @ a @ x.detach()
    expected = a.T @ a @ (x.detach() + RHO * uphill / uphill.norm())
    _ascend_and_differentiate(loss, [x], RHO)
    torch.testing.assert_close(x.grad, expected)
    torch.testing.assert_close(x.detach(), torch.tensor([1.0, -2.0]))


@torch.no_grad()
def test_attention_maps_are_mean_squares_over_channels(trained: Trained, attacker: Attacker) -> None:
    x = three_channels(as_input(attacker.own_images()[:3]))
    maps = attention_maps(trained.encoder, x)
    assert len(maps) > 1
    for (h, w), found in maps.items():
        assert found.shape == (3, h * w)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    planes: list[torch.Tensor] = []
    stage = [m for m in trained.encoder.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(lambda _m, _i, o: planes.append(o)) for m in stage]
    trained.encoder(x)
    for hook in hooks:
        hook.remove()
    last = [o for o in planes if o.ndim == 4 and o.shape[-1] == max(w for _, w in maps)][-1]
    naive = torch.tensor([[sum(float(v) ** 2 for v in last[0, :, 0, j]) for j in range(last.shape[3])]])
    found = maps[last.shape[2], last.shape[3]][0, : last.shape[3]]
    torch.testing.assert_close(found / found.norm(), (naive / naive.norm())[0], atol=1e-4, rtol=1e-3)


def test_wrk_ends_with_another_last_layer(trained: Trained, attacker: Attacker) -> None:
    before, after = matrices(trained.encoder)[-1], matrices(wrk(trained.encoder, attacker, 1))[-1]
    cosine = torch.nn.functional.cosine_similarity(before.flatten(), after.flatten(), dim=0)
    assert abs(float(cosine.detach())) < 0.3


def test_fine_tuning_learns_the_labels(trained: Trained, attacker: Attacker) -> None:
    """The share of the variance of the representations that the labels explain, before and after."""
    images, labels = attacker.own_images(), attacker.own_labels()

    def explained(encoder: nn.Module) -> float:
        x = represent(encoder, images)
        means = torch.stack([x[labels == k].mean(0) for k in range(10)])
        return float(1 - (x - means[labels]).square().sum() / (x - x.mean(0)).square().sum())

    steps: list[int] = []
    watched = Attacker(images=images, labels=labels, seed=1, progress=lambda _what, done, _all: steps.append(done))
    tuned = evade(trained.encoder, "supervised:60", watched)
    assert explained(tuned) > explained(trained.encoder) + 0.01  # type: ignore[arg-type]
    assert steps == list(range(1, 60 * (len(images) // 128) + 1))


@pytest.mark.parametrize(("name", "lacks"), [("supervised", "labels"), ("lora", "labels"), ("merge", "checkpoint")])
def test_what_an_attacker_lacks_is_named(name: str, lacks: str, trained: Trained, attacker: Attacker) -> None:
    with pytest.raises(TrainingError, match=lacks):
        evade(trained.encoder, name, Attacker(images=attacker.images))
