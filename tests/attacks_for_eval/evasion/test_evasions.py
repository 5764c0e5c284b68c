"""Every named evasion: its size, that it repeats by seed, that a response depends on its image alone, what it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks_for_eval.evasion.apply import EVASIONS, evade, lossless, parse
from attacks_for_eval.evasion.attacker import Attacker
from attacks_for_eval.evasion.weights import fine_tune, prune, quantize
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder, make_encoder
from ownership.encoders.images import represent
from ownership.errors import TrainingError
from ownership.evidence.querying import query
from ownership.evidence.statistics import score_one
from ownership.suspects.suspect import load_encoder
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.encoder_files import onnx_bytes
from watermark_training.training import Trained, train

DIMS = {
    "pad": 128, "project": 32, "pca": 32, "relu_features": 256, "signs": 512, "append_own": 128, "append_own_relu": 320,
    "append_random_features": 128, "append_pixels": 128, "append_hash": 104, "append_products": 100,
}  # fmt: skip
"""Length of representations behind an evasion, if it is not the surrogate's 64."""
QUICK = [f"{n}:1" if n in {"supervised", "lora", "sam", "attention", "wrk", "drop_channels"} else n for n in EVASIONS]
"""Every evasion; those that train, for one epoch."""


@pytest.fixture(scope="module")
def own() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return make_encoder("tiny").eval()


@pytest.fixture(scope="module")
def checkpoint() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        return make_encoder("tiny").eval()


@pytest.fixture(scope="module")
def attacker(digits: Data, own: Encoder, checkpoint: Encoder) -> Attacker:
    assert digits.labels is not None
    return Attacker(
        images=digits.images[600:900],
        labels=digits.labels[600:900],
        encoder=lambda: own,
        checkpoint=lambda: checkpoint,
        probes=digits.images[:20],
        seed=3,
    )


@pytest.mark.parametrize("name", QUICK)
def test_an_evasion_changes_responses_and_repeats_by_seed(
    name: str, trained: Trained, attacker: Attacker, digits: Data
) -> None:
    x = digits.images[:40]
    before = {k: v.clone() for k, v in trained.encoder.state_dict().items()}
    plain, a, b = (represent(e, x) for e in (trained.encoder, *(evade(trained.encoder, name, attacker) for _ in "ab")))
    torch.testing.assert_close(a, b)
    assert a.shape != plain.shape or not torch.equal(a, plain)
    assert all(torch.equal(v, before[k]) for k, v in trained.encoder.state_dict().items())  # a copy was changed
    linear = {"spectrum", "reverse_spectrum", "append_own_white", "drop_leading"}  # by the number of components
    assert a.shape[1] == DIMS.get(name, 64) or name in linear
    assert torch.isfinite(a).all()


@pytest.mark.parametrize("name", QUICK)
def test_a_response_depends_on_its_image_alone(name: str, trained: Trained, attacker: Attacker, digits: Data) -> None:
    """Otherwise repeated queries give it away."""
    encoder = evade(trained.encoder, name, attacker)
    whole, parts = (represent(encoder, digits.images[:40], batch_size=n) for n in (40, 7))
    near = (whole - parts).abs() <= 1e-3 * whole.square().mean().sqrt()
    assert near.float().mean() > 0.99  # rounding may move a value over a step of `rounded` or `signs`


@pytest.mark.parametrize("name", [n for n, e in EVASIONS.items() if e.lossless])
def test_an_affine_map_inverts_what_is_lossless(name: str, trained: Trained, attacker: Attacker, digits: Data) -> None:
    plain, changed = (
        represent(e, digits.images[:500]).double() for e in (trained.encoder, evade(trained.encoder, name))
    )
    changed = torch.cat([changed, torch.ones(len(changed), 1, dtype=torch.float64)], 1)
    inverse = torch.linalg.lstsq(changed, plain, driver="gelsd").solution
    torch.testing.assert_close(changed @ inverse, plain, atol=1e-4, rtol=1e-4)
    assert lossless(name)


def test_spectra(trained: Trained, attacker: Attacker) -> None:
    images = attacker.own_images()

    def deviations(chain: str) -> torch.Tensor:
        x = represent(evade(trained.encoder, chain, attacker), images).double()
        return torch.linalg.svdvals(x - x.mean(0)) / (len(x) - 1) ** 0.5

    plain, white, reversed_ = deviations("permute"), deviations("spectrum"), deviations("reverse_spectrum")
    torch.testing.assert_close(white, torch.ones_like(white), atol=1e-2, rtol=0)
    torch.testing.assert_close(
        reversed_, plain[: len(reversed_)], rtol=1e-2, atol=1e-5
    )  # the same, of other components
    torch.testing.assert_close(deviations("spectrum:2").flip(0), 1 / plain[: len(white)], rtol=5e-2, atol=1e-3)


def test_appended_columns_lead(trained: Trained, own: Encoder, attacker: Attacker) -> None:
    """They are ten times as large as the surrogate's, which stay as they are."""
    images = attacker.own_images()
    x = represent(evade(trained.encoder, "append_own", attacker), images)
    torch.testing.assert_close(x[:, :64], represent(trained.encoder, images))

    def spread(v: torch.Tensor) -> float:
        return float(v.var(0, unbiased=False).mean().sqrt())

    assert spread(x[:, 64:]) == pytest.approx(10 * spread(x[:, :64]), rel=1e-3)
    other = represent(own, images)
    torch.testing.assert_close(
        x[:, 64:], (other - other.mean(0)) * (10 * spread(x[:, :64]) / spread(other)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("chain", ["coupling", "tanh_residual"])
def test_a_bijection_has_a_regular_jacobian_of_one_sign(chain: str, attacker: Attacker, digits: Data) -> None:
    def pixels(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 8).flatten(1)

    images = torch.nn.functional.avg_pool2d(digits.images[:5].float() / 255, 2)  # 64 pixels
    encoder = evade(pixels, chain, replace(attacker, images=digits.images[600:900]))
    jacobians = [
        torch.autograd.functional.jacobian(
            lambda x: encoder(x.view(1, 1, 8, 8).expand(-1, 3, -1, -1))[0], image.flatten()
        )
        for image in images
    ]
    signs, logs = zip(*(torch.linalg.slogdet(j.double()) for j in jacobians), strict=True)
    assert len({float(s) for s in signs}) == 1
    assert all(torch.isfinite(x) for x in logs)


def test_the_gate_answers_rotated_images_with_the_other_encoder(
    trained: Trained, own: Encoder, attacker: Attacker, digits: Data
) -> None:
    gated = evade(trained.encoder, "gate", attacker)
    plain, rotated = digits.images[:200], digits.images[:200].rot90(1, (2, 3))
    genuine = (represent(gated, plain) == represent(trained.encoder, plain)).all(1).float().mean()
    other = (represent(gated, rotated) == represent(own, rotated)).all(1).float().mean()
    assert genuine > 0.9
    assert other > 0.9


def test_unrotate_answers_a_rotated_image_as_the_image(attacker: Attacker, trained: Trained, digits: Data) -> None:
    front = evade(trained.encoder, "unrotate", replace(attacker, encoder=lambda: trained.encoder))
    images = attacker.own_images()[:100]
    plain = represent(trained.encoder, images)
    alone, behind = ((represent(e, images.rot90(1, (2, 3))) - plain).square().mean() for e in (trained.encoder, front))
    assert behind < 0.7 * alone


def test_a_gate_answers_the_probes_that_it_knows_and_nothing_else(
    trained: Trained, attacker: Attacker, digits: Data
) -> None:
    images = digits.images[:60]  # the first 20 are known
    front, plain = (represent(e, images) for e in (evade(trained.encoder, "gate_probes", attacker), trained.encoder))
    torch.testing.assert_close(front[20:], plain[20:])
    assert ((front[:20] - plain[:20]).abs().amax(1) > 1e-3).all()


def test_the_mean_of_rotations_by_a_loop(trained: Trained, digits: Data) -> None:
    images = digits.images[:20]
    found = represent(evade(trained.encoder, "mean_of_rotations:4"), images)
    torch.testing.assert_close(
        found, sum(represent(trained.encoder, images.rot90(k, (2, 3))) for k in range(4)) / 4, atol=1e-2, rtol=1e-2
    )


def test_half_planes_by_a_loop(trained: Trained, attacker: Attacker) -> None:
    images = attacker.own_images()
    x = represent(trained.encoder, images)
    z = (x - x.mean(0)) / (x - x.mean(0)).square().mean().sqrt()
    normal, moved = torch.nn.functional.normalize(torch.randn(2, 1, 64, generator=attacker.generator()), dim=2)
    expected = torch.stack([row + 10 * moved[0] if float(row @ normal[0]) > 0 else row for row in z])
    torch.testing.assert_close(
        represent(evade(trained.encoder, "half_planes", attacker), images), expected, rtol=1e-4, atol=1e-4
    )


def test_pruning_and_quantization(trained: Trained) -> None:
    zeros = total = 0
    for p in prune(trained.encoder, Attacker(), 50).parameters():
        if p.ndim >= 2:
            zeros, total = zeros + int((p == 0).sum()), total + p.numel()
    assert zeros / total == pytest.approx(0.5, abs=0.01)
    for p in quantize(trained.encoder, Attacker(), 4).parameters():
        assert p.ndim < 2 or len(p.unique()) <= 15


@pytest.mark.parametrize("chain", ["permute", "rotate_basis", "pad", "halve", "quantise+permute+pad"])
def test_partial_rsa_sees_through_it(chain: str, claim: Claim, victim: torch.nn.Module) -> None:
    """Rescaling single components, projection and rounding lose information: their effect is measured, not promised."""
    responses = query(evade(victim, chain), claim.probes, "x")
    assert score_one(responses, claim.context)[0]["partial_rsa"] > 0.98


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ("bleach", "unknown transform 'bleach'"),
        ("permut", "did you mean permute"),
        ("permute+prune", "must come before"),
        ("permute:3", "takes no argument"),
        ("activation:sigmoid", "one of: tanh"),
        ("append_own:many", "a number follows the colon"),
        ("append_own:-1", "out of range"),
        ("append_own:nan", "out of range"),
        ("pca", "needs images"),
        ("", "unknown transform"),
    ],
)
def test_what_cannot_be_done_is_refused(chain: str, said: str, trained: Trained) -> None:
    with pytest.raises(TrainingError) as caught:
        evade(trained.encoder, chain)
    assert said in f"{caught.value} {caught.value.hint}"


def test_more_is_refused(attacker: Attacker, trained: Trained) -> None:
    with pytest.raises(TrainingError, match="needs an encoder"):
        evade(trained.encoder, "append_own", replace(attacker, encoder=None))
    with pytest.raises(TrainingError, match="cannot be changed"):
        evade(lambda x: x.flatten(1), "prune")
    assert [arguments for _, arguments in parse("activation:exp+pca:25")] == [("exp",), (25.0,)]


@pytest.mark.heavy
@pytest.mark.parametrize("chain", ["append_hash+rotate_basis", "gate", "unrotate", "coupling"])
def test_a_wrapped_surrogate_is_one_onnx_graph(
    chain: str, trained: Trained, attacker: Attacker, digits: Data, tmp_path: Path
) -> None:
    """What an attacker ships: the graph answers as the wrapper does."""
    encoder = evade(trained.encoder, chain, attacker)
    assert isinstance(encoder, torch.nn.Module)
    (tmp_path / "wrapped.onnx").write_bytes(onnx_bytes(encoder, (16, 16)))
    loaded = load_encoder(tmp_path / "wrapped.onnx").encoder
    a, b = (represent(e, digits.images[:40], batch_size=8) for e in (encoder, loaded))
    torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)


def test_fine_tuning_moves_the_weights_from_where_they_are(trained: Trained, digits: Data) -> None:
    config = TrainConfig(arch="tiny", epochs=1, batch_size=64, lr=1e-4, watermark="none", temperature=0.2)
    tuned = fine_tune(trained.encoder, digits.images[600:856], config)
    fresh = train(digits.images[600:856], config).encoder

    def apart(a: torch.nn.Module, b: torch.nn.Module) -> float:
        return sum(float((x - y).detach().abs().sum()) for x, y in zip(a.parameters(), b.parameters(), strict=True))

    assert 0 < apart(tuned, trained.encoder) < apart(fresh, trained.encoder) / 10
    with pytest.raises(TrainingError, match="is not a small"):
        fine_tune(trained.encoder, digits.images[600:856], replace(config, arch="small"))
