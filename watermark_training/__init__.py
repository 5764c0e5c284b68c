"""Self-supervised training of image encoders with a secret rotation watermark.

Read `train` (the loop), `objectives` and `mark` (what is learnt), `augment` (views), `losses`, `embed` (retrofit),
`artefacts` (what is written), `data` (what is read).
"""
