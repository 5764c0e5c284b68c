"""Self-supervised training of image encoders with a secret rotation watermark.

Read `train` (the loop), `augment` (views), `losses`, `artefacts` (what is written), `data` (what is read).
"""
