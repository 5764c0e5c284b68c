"""The terms of reports: what a test, a field of the plan and a word mean; and how numbers are printed for people."""

from __future__ import annotations

import math

import numpy as np

from ownership.verdict.strength import Support

FAMILIES = {
    "distance": "Representation distance",
    "watermark": "Watermark",
    "inference": "Dataset inference",
}

SUPPORT_LEVELS = {
    Support.NONE: "no support for either proposition",
    Support.WEAK: "weak support",
    Support.MODERATE: "moderate support",
    Support.MODERATELY_STRONG: "moderately strong support",
    Support.STRONG: "strong support",
    Support.VERY_STRONG: "very strong support",
    Support.EXTREMELY_STRONG: "extremely strong support",
}
"""Level -> its words on the scale of ENFSI."""

LIMITS = (
    "It is not the probability that the suspect was copied. That probability depends on everything else that is known; "
    "to read one for the other is the prosecutor's fallacy.",
    "By the key test or the twins it compares with every encoder that was made without the victim. By the panel alone "
    "it compares with independent encoders of the panel's kinds, and says nothing about other kinds.",
    "The reference surrogates are extraction attacks that the owner made. Other attacks may be harder to detect; the "
    "ratio is lower then.",
    "The ratio is of the verdict, not of the score: no ratio exceeds one divided by the error rate. A p-value from the "
    "panel below 0.001 extrapolates a normal tail, and the score adds nothing to the ratio.",
    "By the key test it assumes that the key did not leak, that the owner made no more keys than stated, and that the "
    "suspect was not made from data or models that carry the key with the owner's permission.",
)
"""What a likelihood ratio does not say."""

EXPLAINED = {
    "partial_rsa": "Does the suspect find the same images similar as the victim does, beyond what independent encoders "
    "have in common? 0 means no relation, 1 a copy. A change of basis, scale or dimension of the representation does "
    "not affect it.",
    "partial_rsa_relative": "The suspect is compared in the same way with the victim and with every panel member. The "
    "score is the number of standard deviations by which its similarity to the victim exceeds its similarity to the "
    "panel. An encoder that resembles many others, or a poor copy, is thus measured on its own scale.",
    "partial_regression": "How well does a linear map of the suspect's representations predict what of the victim "
    "neither the panel nor untrained features of the images explain, compared with the same for every panel member? In "
    "standard deviations over the panel. No change of basis or scale hides a copy from it; appended columns weaken it.",
    "partial_rsa_rotated": "Partial RSA between the victim's representations of unrotated images and the suspect's "
    "mean representations of rotated copies. It detects a surrogate that was trained to return the same representation "
    "for every rotation of an image.",
    "watermark_probability": "The victim was trained so that a secret predictor can tell from a representation in "
    "which secret sector the angle lies by which an image was rotated. The score is the mean probability that this "
    "predictor gives to the true sector, from the suspect's representations, minus three standard errors. Guessing "
    "gives at most 50 %.",
    "watermark_auc": "The area under the ROC curve of the same predictor: how often it orders two views correctly that "
    "were rotated into sectors of different labels. Guessing gives 50 %.",
    "watermark_success": "How often the same predictor is right on single views (the paper, section 5.1). Guessing "
    "gives 50 %.",
    "watermark_aligned": "The success rate after a linear map from the suspect's representations to the victim's. Any "
    "encoder that represents orientation scores high here; only the comparison with the panel is meaningful.",
    "cka": "Centered kernel alignment, a standard similarity of representations, 0 to 1. Independent encoders of the "
    "same kind of images are similar, too, so it does not decide.",
    "l2_distance": "Mean Euclidean distance between the two representations of an image (the paper, Table 18). Any "
    "permutation of the output defeats it.",
    "inference_gmm": "Are the victim's private images more likely than public ones under a mixture model of the "
    "suspect's representations of other private images? In standard deviations.",
    "inference_loss": "Are two views of a private image closer together than those of a public image, through the "
    "victim's projection head (the paper, section 5.4)? In standard deviations.",
    "inference_augmentation": "Does the representation of a private image change less under augmentation than that of "
    "a public one (the paper, Table 19)? In standard deviations.",
}
"""Statistic -> what it measures."""

PLAN_EXPLAINED = {
    "rule": "the rule by which the verdict follows from the tests",
    "key_alpha": "probability that the key test rejects for an independent suspect of any kind, over all analyses",
    "twins_alpha": "probability that the test of twins rejects for an independent suspect of any kind",
    "primary": "primary tests: those that decide; all others are secondary and only shown",
    "alpha": "probability of a false positive for an independent encoder of the panel's kinds, over all analyses",
    "interim_queries": "queries after which an interim analysis is made; the final analysis is of all probes",
    "interim_alpha_shares": "shares of alpha that the interim analyses spend; the rest is for the final analysis",
    "correction": "correction for several tests",
    "min_stratum": "members that a stratum of the panel needs in order to count",
    "min_probes": "public probes below which an audit is inconclusive",
    "n_public": "public probes at most: images that the victim was not trained on",
    "n_watermark": "public images shown rotated for the watermark at most, two views each",
    "n_rotated": "public probes that are also shown rotated for partial RSA, at most",
    "n_rotations": "rotated copies of each of these, at random angles",
    "n_private": "private images at most, and as many public ones, for dataset inference",
    "rsa_directions": "leading directions of the representations that partial RSA compares",
    "rotated_directions": "the same for partial RSA on rotated images",
    "rsa_shrinkage": "shrinkage of weak directions in partial RSA",
    "ridge_penalty": "ridge penalty of the linear map from the suspect's to the victim's representations",
    "gmm_components": "components of the mixture model of dataset inference",
    "repeat_share": "share of the probes that is queried twice, to measure whether the responses are stable",
    "repeat_tolerance": "largest difference between two responses to one image, in units of their root mean square "
    "and of each component's standard deviation",
    "seed": "seed of everything that is random in an audit",
}
"""Field of the plan -> what it is."""

GLOSSARY = {
    "Alpha, error rate": (
        "The probability that the rule concludes SUPPORTED for an independent encoder, a false positive. The claim "
        "fixes it before a suspect is seen. That of the key test holds for every independent encoder, that of the "
        "panel's tests for encoders of the kinds in the panel."
    ),
    "Base checkpoint": "The encoder from which another one was fine-tuned.",
    "Claim": (
        "What the victim's owner fixed in advance: probes, panel, plan and the secret of the watermark. A sealed claim "
        "is signed and timestamped, which shows its age and its author."
    ),
    "Control": "A member of the panel. A suspect exceeds all controls if its score exceeds the score of every member.",
    "Anchor, commitment": (
        "Before the key existed, the owner committed to a secret, and an authority timestamped the commitment. The key "
        "follows from the secret and the authority's signature, so it could not be chosen to fit a suspect."
    ),
    "Dataset inference": (
        "A test of whether the suspect treats the victim's private images differently from public ones. It is shown "
        "and does not decide."
    ),
    "Effect size": (
        "Distance of the suspect's score from the mean of a stratum, in standard deviations of that stratum. The "
        "interval beside it shows how uncertain the distance is with so few encoders."
    ),
    "Encoder": (
        "A network that turns an image into a list of numbers, its representation. The victim, the suspect and the "
        "members of the panel are encoders."
    ),
    "H0, null hypothesis": (
        "What is assumed until the evidence speaks against it: the suspect is one more independent encoder."
    ),
    "Holm": (
        "A correction for several tests at once: the smallest p-value is compared with the strictest limit. The "
        "probability of any false rejection stays below alpha."
    ),
    "Independent encoder": "An encoder that was made without the victim and without its responses.",
    "Interim analysis": (
        "The primary tests on the responses to the first queries. Each interim analysis has its own share of alpha; "
        "the final analysis, of all responses, has the rest."
    ),
    "Key, keyed watermark": (
        "The victim was trained to make secret random functions of an image readable from its representations. The key "
        "says which functions. An encoder made without the victim has no reason to make these readable rather than "
        "others that another key would name."
    ),
    "Key test": (
        "The test of the keyed watermark: how well the suspect's representations predict the functions that the key "
        "names, ranked among keys drawn anew. The p-value is exact for every encoder that does not depend on the key."
    ),
    "Likelihood ratio": (
        "How many times as probable the verdict is if the suspect was copied as if it is independent. It is not the "
        "probability that the suspect was copied."
    ),
    "p-value": (
        "The probability that an independent encoder scores at least as high as the suspect does. It is not the "
        "probability that the suspect is independent."
    ),
    "Panel": (
        "Encoders known to be independent of the victim, of the kinds that resemble it most. They receive the same "
        "probes, and the suspect's scores are compared with theirs."
    ),
    "Partial RSA": (
        "Partial representational similarity analysis: a comparison of two encoders by which images each represents "
        "as similar, after removing what independent encoders have in common."
    ),
    "Primary test": "A test that decides. A secondary test is only shown.",
    "Probe": (
        "An image that is sent to every encoder: public (the victim was not trained on it) or private (it was), "
        "unrotated or rotated."
    ),
    "Reject": "A test rejects the null hypothesis if its p-value is small enough and the suspect exceeds all controls.",
    "Representation": "The list of numbers that an encoder returns for an image.",
    "Sandbox": (
        "The isolated process in which a suspect's file runs. It sees probes and nothing else of the auditor's "
        "machine. Section 8 names its isolation layers."
    ),
    "Sibling": "An encoder that was fine-tuned from the victim's base checkpoint, independently of the victim.",
    "Stratum": (
        "One kind of independent encoder in the panel, such as plain or watermarked. The suspect is tested against "
        "each stratum, and the largest p-value counts."
    ),
    "Surrogate, reference surrogate": (
        "A copy made by an extraction attack: by querying the victim with many images and training on its responses. "
        "Reference surrogates were made by the owner, to measure what the claim can detect."
    ),
    "Threshold": (
        "The score from which the smallest p-value of the primary tests suffices, against every stratum and above "
        "every member."
    ),
    "Twins": (
        "Encoders of one recipe that the owner committed to together. The signature of a timestamp authority picked "
        "the one that was deployed, the victim. An encoder that does not depend on the pick resembles the victim most "
        "with probability one divided by the number of twins."
    ),
    "Victim": "The encoder that is claimed to have been copied.",
    "Watermark": (
        "A property trained into the victim that the owner's secret predictor detects: it tells in which secret sector "
        "the angle lies by which an image was rotated."
    ),
}
"""Term -> its meaning, in one or two sentences."""


def format_number(x: float | None) -> str:
    """Return a number with three significant digits, or a dash.

    >>> format_number(0.123456), format_number(12345.6), format_number(None)
    ('0.123', '12346', '–')
    """
    if x is None or not math.isfinite(x):
        return "–"
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def format_ratio(x: float) -> str:
    """Return a likelihood ratio with three significant digits.

    >>> format_ratio(36.84), format_ratio(3684.03)
    ('36.8', '3,680')
    """
    rounded = float(f"{x:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"


def format_exact_p(p: float) -> str:
    """Return an exact p-value as it is.

    >>> format_exact_p(1e-5), format_exact_p(0.0123), format_exact_p(0.5)
    ('0.00001', '0.012', '0.5')
    """
    return np.format_float_positional(float(f"{p:.2g}"), trim="-")


def format_p(p: float) -> str:
    """Return a p-value for people. Below 0.001 it would extrapolate a normal tail, and is not printed (rule 3).

    >>> format_p(0.00002), format_p(0.0123), format_p(0.95)
    ('< 0.001', '0.012', '0.95')
    """
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
