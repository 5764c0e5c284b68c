"""Checks on the accuser, made anew at every audit from what the claim holds; they inform.

- Probes: doubled ones, private images among the public ones, private and public ones that can be told apart without any
  model (other colours, sharpness, disturbance): then a gap between them says nothing about membership. Rotated
  ones that are not the image they are said to show.
- Decoy keys: the mark as read by a predictor that the auditor fits to the victim's own answers, for the claim's key and
  for keys drawn afterwards. A predictor that was trained on the suspect reads what these do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from ownership.claims.claim import Claim
from ownership.encoders.images import as_input, as_uint8, images_sha256
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.evidence.querying import close, query
from ownership.evidence.responses import Responses
from ownership.evidence.similarity import Array, ridge_map
from ownership.evidence.watermark_scores import watermark_success
from ownership.suspects.suspect import Suspect
from ownership.verdict.results import PredictorCheck
from ownership.watermark import rotate, secret_key

SEPARABLE = 0.65
"""Area under the ROC curve from which on private and public probes count as told apart (with p < .001)."""

ROUNDING = 2
"""Levels of 255 by which another machine's rotation may differ."""

N_CONTROL_KEYS = 19


def check_probes(claim: Claim) -> list[str]:
    """Returns what is odd about a claim's probes, in plain sentences; empty if nothing is."""
    public, private = claim.probes["public"], claim.probes.get("private")
    digests = [images_sha256(image) for image in public]
    notes = []
    if (doubled := len(digests) - len(set(digests))) > 0:
        notes.append(f"{doubled} of {len(digests)} public probes are doubled")
    if other := not_as_stated(claim):
        notes.append(
            f"{other} of {len(claim.probes['watermark'])} rotated probes are not the public image that they are said "
            "to show, turned by the stated angle: one of them was altered"
        )
    if private is None or len(private) < 40:
        return notes
    known = set(digests)
    if shared := sum(images_sha256(image) in known for image in private):
        notes.append(f"{shared} of {len(private)} private probes are among the public ones")
    area, pvalue = separability(private, public[: len(private)])
    if area >= SEPARABLE and pvalue < 1e-3:
        notes.append(
            f"private and public probes can be told apart without any encoder (area under the ROC curve {area:.2f}): "
            "their source differs, or one of them was altered; dataset inference means nothing"
        )
    return notes


def not_as_stated(claim: Claim) -> int:
    """Returns how many rotated probes are not the public one they show, turned by their angle (claims of format 4)."""
    if claim.watermark_images is None or claim.watermark_angles is None:
        return 0
    turned = as_uint8(rotate(as_input(claim.probes["public"][claim.watermark_images]), claim.watermark_angles))
    apart = (turned.int() - claim.probes["watermark"].int()).abs().flatten(1).amax(1)
    return int((apart > ROUNDING).sum())


def separability(private: Tensor, public: Tensor) -> tuple[float, float]:
    """Returns how well a linear model tells two sets of images apart by simple features: area under ROC, p.

    H0: private and public images are draws from one source. H1: they differ. Unit: one image; that is right here, as
    the question is about these images. Five-fold cross-validated logistic regression, Mann-Whitney test of its scores,
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
    said = cross_val_predict(model, x, y, cv=5, method="decision_function")
    test = stats.mannwhitneyu(said[y == 1], said[y == 0], alternative="greater")
    return float(test.statistic) / (len(private) * len(public)), float(test.pvalue)


def _features(images: Tensor) -> Array:
    """Thumbnail, colour, and fine structure at two scales: where adversarial disturbance and re-encoding show."""
    x = images.double() / 255
    grey = x.mean(1, keepdim=True)
    thumbnail = F.adaptive_avg_pool2d(grey, 6).flatten(1)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=x.dtype).view(1, 1, 3, 3)
    fine = [F.conv2d(g, kernel).abs().mean((1, 2, 3)) for g in (grey, F.avg_pool2d(grey, 2))]
    flat = (grey[..., 1:] == grey[..., :-1]).double().mean((1, 2, 3))
    colour = torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)
    out: Array = torch.cat([thumbnail, colour, torch.stack([*fine, flat], 1)], 1).numpy()
    return out


def check_predictor(claim: Claim, responses: Responses) -> PredictorCheck | None:
    """Returns the mark as read by refitted predictors; None where the claim has no mark or dimensions differ.

    Args:
        claim: with the angle of each watermark probe (format 2).
        responses: the suspect's.
    """
    victim = claim.responses[claim.victim.name]
    if claim.predictor is None or claim.watermark_angles is None or responses.dim != victim.dim:
        return None
    angles, half = claim.watermark_angles, len(claim.watermark_angles) // 2
    generator = torch.Generator().manual_seed(2**31 + claim.plan.seed)
    labels = [_own_labels(claim, angles), *(secret_key(generator).labels(angles) for _ in range(N_CONTROL_KEYS))]
    theirs, suspects = _turned(victim, claim), _turned(responses, claim)
    rates, own = (
        [_refitted(theirs[:half], read[half:], own_or_decoy, half) for own_or_decoy in labels]
        for read in (suspects, theirs)
    )
    return PredictorCheck(
        claimed=watermark_success(responses, claim.context),
        claimed_victim=watermark_success(victim, claim.context),
        refitted=rates[0],
        control_rates=tuple(rates[1:]),
        refitted_victim=sum(own) / len(own),
        n=len(angles) - half,
    )


def _own_labels(claim: Claim, angles: Tensor) -> Tensor:
    """By the claim's key; where that is withheld, as the claim states them."""
    if claim.key is not None:
        return claim.key.labels(angles)
    if claim.watermark_labels is None:
        raise ClaimError("claim: watermark angles without labels", "it was written by another program")
    return claim.watermark_labels


def _refitted(learnt: Array, read: Array, labels: Tensor, half: int) -> float:
    signs: NDArray[np.float64] = 2.0 * labels.numpy() - 1
    weights, intercept = ridge_map(learnt, signs[:half, None])
    return float(np.mean(np.sign(read @ weights + intercept)[:, 0] == signs[half:]))


def _turned(responses: Responses, claim: Claim) -> Array:
    """Responses to the rotated probes, or what rotation changes in them where the claim's predictor reads pairs."""
    turned = _directions(responses.get("watermark"))
    if claim.predictor is None or not claim.predictor.pairs or claim.watermark_images is None:
        return turned
    out: Array = turned - _directions(responses.get("public"))[claim.watermark_images.numpy()]
    return out


def _directions(x: Array) -> Array:
    """Responses scaled to length 1, as the predictor reads them (docs/adr/0002)."""
    out: Array = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return out


def check_panel(claim: Claim, models: Sequence[Suspect]) -> dict[str, str]:
    """Computes panel members' answers anew from their files, so that nobody can invent a panel.

    Args:
        claim: whose panel.
        models: encoders from files; each is matched to a member by its SHA-256.

    Returns:
        EncoderRecord -> "verified", or "no file of its SHA-256 was given".

    Raises:
        ClaimIntegrityError: if a member's file gives other answers than the claim says.
    """
    by_digest = {model.sha256: model for model in models}
    checked = {}
    for member in claim.members:
        model = by_digest.get(member.sha256)
        if model is None:
            checked[member.name] = "no file of its SHA-256 was given"
            continue
        again = query(model.preprocess.before(model.encoder), claim.probes, member.name)
        model.close()
        for name, said in claim.responses[member.name].sets.items():
            if not close(again.sets[name], said):
                raise ClaimIntegrityError(
                    f"claim integrity: {member.name}'s file does not give the answers that the claim holds for it",
                    "the panel was not made as the claim says; get the original claim",
                )
        checked[member.name] = "verified"
    return checked
