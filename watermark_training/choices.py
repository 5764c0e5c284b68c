"""The values that training options take, as types. Nothing heavy is imported, so that the CLI can list them."""

from __future__ import annotations

from typing import Literal

Objective = Literal["simclr", "simsiam", "barlow"]
"""Self-supervised objective that an encoder is trained with."""
WatermarkTask = Literal["keyed", "secret", "paper", "none"]
"""keyed: the keyed watermark. Rotation watermarks: secret, with a fresh secret key; paper, the paper's public
180-degree rotation task. none: no watermark."""
ROTATION_TASKS = ("secret", "paper")
"""Watermarks that consist in predicting how an image was rotated."""
PredictorTraining = Literal["trained", "frozen"]
"""How the rotation predictor is obtained: trained with the encoder and refitted, or as the key draws it."""
OWN_LOOP = "own loop"
"""The method that `config.json` states for an encoder of the owner's own training loop."""
Precision = Literal["auto", "float32", "bfloat16"]
"""auto: bfloat16 autocast where the hardware computes faster in it."""
OnBadImage = Literal["stop", "skip"]
"""What happens at a file that is not a readable image."""
