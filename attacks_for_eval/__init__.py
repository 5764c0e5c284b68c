"""Model-extraction attacks, evasion and defences: what a claim detects. May import: watermark_training, ownership.

Extract a surrogate of an encoder::

    from attacks_for_eval import BlackBox, ExtractionConfig, extract

    victim = BlackBox(encoder)                                       # counts the queries
    surrogate = extract(victim, images, ExtractionConfig(loss="mse", arch="small", queries=2048))

The rooms:

- `extraction`: query a victim and train a surrogate on its representations.
- `evasion`: transforms of outputs and of weights that an attacker applies to hide a surrogate.
- `claims`: what an owner needs attacks for: reference surrogates, the reference panel, the claim with both.
- `evaluation`: error rates over a grid of surrogates and independent encoders.
- `defences`: defences of an API, which the benchmarks compare.
- `demo`, `serve`: the pipeline of `turnmark demo`, and a small endpoint for trials.

Names are imported when they are first used, so that `import attacks_for_eval` costs nothing.
"""

from ownership.io.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
