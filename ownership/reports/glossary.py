"""The words of reports: what a test, a field of the plan and a term mean, in plain sentences; numbers for people."""

from __future__ import annotations

import math

FAMILIES = {
    "distance": "Representation distance",
    "watermark": "Watermark",
    "inference": "Dataset inference",
}

EXPLAINED = {
    "partial_rsa": "Does the suspect share the pattern of similarities between images that is peculiar to the victim, "
    "beyond what independent encoders share? 0 is no relation, 1 a copy. A change of basis, scale or dimension of "
    "the output does not affect it.",
    "partial_rsa_relative": "The suspect is compared in the same way with every panel member, too: by how many "
    "standard deviations does its likeness to the victim exceed its likeness to them? An encoder that resembles "
    "everybody, or that copies badly, is so measured by its own yardstick.",
    "partial_rsa_rotated": "The same between the victim's answers to upright images and the suspect's mean answers to "
    "turned copies of them. A thief who trains a surrogate to answer alike however an image is turned gives it away.",
    "watermark_probability": "The owner trained the victim so that a secret predictor can tell, from a representation, "
    "into which secret part of the circle an image was rotated. How probable does that predictor, reading the "
    "suspect's answers, find the truth, on average? Three standard errors are taken off. Guessing gives at most 50 %.",
    "watermark_auc": "Of two views, rotated into the two secret kinds of arcs: how often does the owner's predictor "
    "put them in the right order? Guessing gives 50 %.",
    "watermark_success": "How often the same predictor is right on single views (the paper, section 5.1). Guessing "
    "gives 50 %.",
    "watermark_aligned": "The same after a linear map from the suspect's representations to the victim's. Strangers "
    "with any sense of orientation score high here too; only the comparison with the panel means anything.",
    "cka": "A standard similarity of representations, 0 to 1. Independent encoders of one kind of images are alike "
    "too, which is why it only informs.",
    "l2_distance": "Mean distance between the two representations of an image (the paper's Table 18). Any "
    "permutation of the output defeats it.",
    "inference_gmm": "Whether the victim's private images look more likely than public ones to a mixture model of the "
    "suspect's representations of other private images, in standard deviations.",
    "inference_loss": "Whether two views of a private image lie closer together than those of a public image, through "
    "the victim's projection head (the paper, section 5.4), in standard deviations.",
    "inference_augmentation": "Whether a private image moves less under augmentation than a public one (the paper, "
    "Table 19), in standard deviations.",
}

PLAN_EXPLAINED = {
    "rule": "the rule by which the verdict follows from the tests",
    "primary": "tests that may decide; all others are shown only",
    "alpha": "chance of calling an independent encoder of the panel's kinds a copy, over all tests and looks",
    "interim_queries": "queries after which an audit may already decide; the last look is at all probes",
    "interim_alpha_shares": "shares of alpha that these looks may spend; the rest is the last look's",
    "correction": "how several tests at once are paid for",
    "min_stratum": "members that a kind of the panel needs in order to count",
    "min_probes": "public probes below which an audit is inconclusive",
    "n_public": "most public probes: images the victim was not trained on",
    "n_watermark": "most public images shown rotated, two views each, for the watermark",
    "n_rotated": "most public probes that are also shown turned",
    "n_rotations": "times each, at random angles",
    "n_private": "most private images, and as many public ones, for dataset inference",
    "rsa_directions": "leading directions of the representations that are compared",
    "rotated_directions": "the same, where images are shown turned",
    "rsa_shrinkage": "how much weak directions are damped",
    "ridge_penalty": "of the linear map from the suspect's to the victim's representations",
    "gmm_components": "of the mixture model of dataset inference",
    "repeat_share": "share of the probes that is asked twice, to see whether the answers are stable",
    "repeat_tolerance": "largest difference between two answers to one image, in units of their root mean square",
    "seed": "from which all that is random here follows",
}
"""Field of the plan -> what it is."""

GLOSSARY = {
    "Alpha, error rate": (
        "The chance that the rule calls an independent encoder a copy. It is fixed in the claim, before any "
        "suspect is seen, and holds for encoders of the kinds in the panel."
    ),
    "Claim": (
        "What the victim's owner fixed before the dispute: probes, panel, plan and the secret of the watermark. "
        "A sealed claim is signed and timestamped, so that its age and its author can be shown."
    ),
    "Dataset inference": (
        "A test of whether the suspect treats the victim's private images otherwise than public ones. Shown "
        "here, never deciding."
    ),
    "Effect size": (
        "How far the suspect lies from the mean of a kind of the panel, in standard deviations of that kind. "
        "The interval beside it says how uncertain that is with so few encoders."
    ),
    "Encoder": (
        "A network that turns an image into a list of numbers, its representation. The victim, the suspect and "
        "the members of the panel are encoders."
    ),
    "Finding": "The verdict. The likelihood ratio is of the finding, not of the score behind it.",
    "H0, null hypothesis": (
        "What is assumed until the evidence speaks against it: the suspect is one more independent encoder. "
        "Each test says how surprising its score would be then."
    ),
    "Holm": (
        "A correction for making several tests at once: the smallest p-value is held against the strictest "
        "limit. So the chance of any false rejection stays at alpha."
    ),
    "Likelihood ratio": (
        "How many times as probable the finding is if the suspect was copied as if it is independent. It is not "
        "the probability that the suspect was copied."
    ),
    "Look": (
        "A point of the audit at which the tests are made on the answers so far. Each look has its own share of alpha."
    ),
    "p-value": (
        "The chance that an independent encoder scores at least as far towards the victim as the suspect does. "
        "It is not the chance that the suspect is innocent."
    ),
    "Panel": (
        "Encoders known to be independent of the victim, of the kinds that look guiltiest. The suspect is "
        "compared with them, asked the same probes."
    ),
    "Partial RSA": (
        "A comparison of two encoders by which images each finds alike, after what all independent encoders "
        "have in common was taken out. Rotating or scaling the numbers changes nothing."
    ),
    "Probe": (
        "An image that every encoder is asked about: public (the victim was not trained on it) or private (it "
        "was), upright or turned."
    ),
    "Representation": "The list of numbers by which an encoder answers an image.",
    "Sandbox": (
        "The closed process in which a suspect's file runs: it sees probes and nothing else of the auditor's "
        "machine. Its layers are named in section 8."
    ),
    "Stratum": (
        "One kind of independent encoder in the panel, such as plain, or watermarked by somebody else. The "
        "suspect is tested against each, and the largest p-value counts."
    ),
    "Surrogate, reference surrogate": (
        "A copy made by asking the victim about many images and training on its answers. Reference surrogates "
        "were made by the owner, to know what the claim can find."
    ),
    "Threshold": (
        "The score from which the smallest p-value of the deciding tests would suffice, against every stratum "
        "and beyond every member."
    ),
    "Victim": "The encoder that is said to have been copied.",
    "Watermark": (
        "A property trained into the victim that only its owner's secret predictor reads: into which secret "
        "part of the circle an image was turned."
    ),
}
"""Term -> two lines."""


def format_number(x: float | None) -> str:
    """Returns a number with three significant digits, or a dash.

    >>> format_number(0.123456), format_number(12345.6), format_number(None)
    ('0.123', '12346', '–')
    """
    if x is None or not math.isfinite(x):
        return "–"
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.3g}"
