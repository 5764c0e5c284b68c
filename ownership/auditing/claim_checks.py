"""Checks on the claim itself, made at every audit from what the claim holds. They are shown and decide nothing.

- Probes: duplicates; private images among the public ones; private and public images that can be told apart without any
  encoder, so that dataset inference is not valid; rotated probes that are not the stated image.
- Predictor: the watermark as detected by linear predictors that the audit fits to the victim's responses, for the
  claim's key and for control keys. A predictor that was trained on the suspect detects what these do not.
- Models: representations of victim, panel and reference surrogates, computed again from their files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from ownership.claims.claim import Claim
from ownership.claims.probes import WatermarkProbes
from ownership.claims.record import EncoderRecord
from ownership.encoders.images import as_input, as_uint8, images_sha256
from ownership.errors import ClaimIntegrityError, SuspectError
from ownership.evidence.querying import allclose_responses, query
from ownership.evidence.responses import Responses
from ownership.evidence.similarity import Array, ridge_map
from ownership.evidence.watermark_scores import watermark_success
from ownership.io.text import printable
from ownership.suspects.suspect import Suspect, load_known
from ownership.verdict.results import ModelCheck, PredictorCheck, ProbeQuality, Separability
from ownership.watermark import rotate, secret_key

ROUNDING = 2
"""Levels of 255 by which the rotation of an image may differ between machines."""

MIN_PRIVATE = 40
"""Private images below which they are not compared with the public ones."""

N_CONTROL_KEYS = 19


def check_probes(claim: Claim) -> ProbeQuality:
    """Return what is wrong with a claim's probes."""
    public, private = claim.probes["public"], claim.probes.get("private")
    digests = [images_sha256(image) for image in public]
    checked = private is not None and len(private) >= MIN_PRIVATE
    shared, found = 0, None
    if private is not None and checked:
        known = set(digests)
        shared = sum(images_sha256(image) in known for image in private)
        found = separability(private, public[: len(private)])
    return ProbeQuality(
        public=len(digests),
        duplicates=len(digests) - len(set(digests)),
        rotated=len(claim.probes.get("watermark", ())),
        mislabeled_rotations=mislabeled_rotations(claim),
        private=len(private) if private is not None and checked else 0,
        shared_private=shared,
        separability=found,
    )


def mislabeled_rotations(claim: Claim) -> int:
    """Return how many rotated probes are not the stated public probe, rotated by the stated angle."""
    made = claim.watermark_probes
    if made is None:
        return 0
    rotated = as_uint8(rotate(as_input(claim.probes["public"][made.sources]), made.angles))
    difference = (rotated.int() - claim.probes["watermark"].int()).abs().flatten(1).amax(1)
    return int((difference > ROUNDING).sum())


def separability(private: Tensor, public: Tensor) -> Separability:
    """Return how well a linear model on simple features tells two sets of images apart.

    H0: private and public images are draws from one source. H1: they differ. Unit: one image, because the question is
    about these images. Five-fold cross-validated logistic regression, Mann-Whitney test of its scores,
    one-sided.

    Args:
        private: `(n, c, h, w)` uint8.
        public: `(m, c, h, w)` uint8.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([_features(private), _features(public)])
    y = np.repeat([1, 0], [len(private), len(public)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500))
    scores = cross_val_predict(model, x, y, cv=5, method="decision_function")
    test = stats.mannwhitneyu(scores[y == 1], scores[y == 0], alternative="greater")
    return Separability(auc=float(test.statistic) / (len(private) * len(public)), pvalue=float(test.pvalue))


def _features(images: Tensor) -> Array:
    """Return thumbnail, color and fine structure at two scales, which adversarial changes and re-encoding alter."""
    x = images.double() / 255
    gray = x.mean(1, keepdim=True)
    thumbnail = F.adaptive_avg_pool2d(gray, 6).flatten(1)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=x.dtype).view(1, 1, 3, 3)
    fine = [F.conv2d(g, kernel).abs().mean((1, 2, 3)) for g in (gray, F.avg_pool2d(gray, 2))]
    flat = (gray[..., 1:] == gray[..., :-1]).double().mean((1, 2, 3))
    color = torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)
    out: Array = torch.cat([thumbnail, color, torch.stack([*fine, flat], 1)], 1).numpy()
    return out


def check_predictor(claim: Claim, responses: Responses) -> PredictorCheck | None:
    """Return the watermark success rates of refitted predictors.

    None if the claim has no watermark, or the suspect's representations have another dimension than the victim's.

    Args:
        claim: The claim.
        responses: The suspect's responses.
    """
    victim = claim.responses[claim.victim.name]
    made = claim.watermark_probes
    if made is None or responses.dim != victim.dim:
        return None
    angles, half = made.angles, len(made.angles) // 2
    generator = torch.Generator().manual_seed(2**31 + claim.plan.seed)
    labels = [_own_labels(claim, made), *(secret_key(generator).labels(angles) for _ in range(N_CONTROL_KEYS))]
    on_victim, on_suspect = _rotated(victim, claim), _rotated(responses, claim)
    rates = [_refitted(on_victim[:half], on_suspect[half:], of_key, half) for of_key in labels]
    victim_rates = [_refitted(on_victim[:half], on_victim[half:], of_key, half) for of_key in labels]
    return PredictorCheck(
        claimed=watermark_success(responses, claim.context),
        claimed_victim=watermark_success(victim, claim.context),
        refitted=rates[0],
        control_rates=tuple(rates[1:]),
        refitted_victim=sum(victim_rates) / len(victim_rates),
        n=len(angles) - half,
    )


def _own_labels(claim: Claim, made: WatermarkProbes) -> Tensor:
    """Return the labels by the claim's key; where the key is redacted, those that the claim states."""
    if claim.watermark is None or claim.watermark.key is None:
        return made.labels
    return claim.watermark.key.labels(made.angles)


def _refitted(fitted: Array, held_out: Array, labels: Tensor, half: int) -> float:
    """Return the success rate on held-out probes of a linear predictor fitted to the other half."""
    signs: NDArray[np.float64] = 2.0 * labels.numpy() - 1
    weights, intercept = ridge_map(fitted, signs[:half, None])
    return float(np.mean(np.sign(held_out @ weights + intercept)[:, 0] == signs[half:]))


def _rotated(responses: Responses, claim: Claim) -> Array:
    """Return the directions of rotated probes, minus those of the unrotated ones where the predictor takes pairs."""
    rotated = _directions(responses.get("watermark"))
    if claim.watermark is None or claim.watermark_probes is None or not claim.watermark.predictor.pairs:
        return rotated
    out: Array = rotated - _directions(responses.get("public"))[claim.watermark_probes.sources.numpy()]
    return out


def _directions(x: Array) -> Array:
    """Return representations scaled to length 1, as the predictor takes them (docs/adr/0002)."""
    out: Array = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return out


def models_in(folder: Path | str, claim: Claim) -> list[Suspect]:
    """Load those encoders of a claim whose files lie in a folder or below it, found by SHA-256.

    Raises:
        SuspectError: If there is none, or one cannot be loaded.
    """
    found = load_known(folder, {m.sha256: m.architecture for m in encoders_of(claim)})
    if not found:
        raise SuspectError(
            f"{printable(folder, 300)} holds no file of an encoder of the claim",
            "files are found by SHA-256: give those that the claim was built from",
        )
    return found


def encoders_of(claim: Claim) -> tuple[EncoderRecord, ...]:
    """Return the records of all encoders whose representations a claim holds."""
    return (claim.victim, *claim.members, *claim.references)


def check_models(claim: Claim, models: Sequence[Suspect]) -> dict[str, ModelCheck]:
    """Compute the representations in a claim again from the encoders' files, so that none can be invented.

    Args:
        claim: The claim.
        models: Encoders from files; each is matched to the victim, a panel member or a reference surrogate by its
            SHA-256.

    Returns:
        Name of each encoder of the claim -> what was checked.

    Raises:
        ClaimIntegrityError: If a file gives other representations than the claim holds.
    """
    by_digest = {model.sha256: model for model in models}
    for record in encoders_of(claim):
        if (model := by_digest.get(record.sha256)) is not None:
            _compare(claim, record.name, model)
    return {m.name: ModelCheck(sha256=m.sha256, recomputed=m.sha256 in by_digest) for m in encoders_of(claim)}


def _compare(claim: Claim, name: str, model: Suspect) -> None:
    again = query(model.asked(), claim.probes, name)
    model.pause()
    for probes, stored in claim.responses[name].sets.items():
        if not allclose_responses(again.sets[probes], stored):
            raise ClaimIntegrityError(
                f"claim integrity: {name}'s file does not give the representations that the claim holds for it",
                "they were not made as the claim says; get the original claim",
            )
