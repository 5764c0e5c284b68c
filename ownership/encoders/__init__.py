"""Encoders: architectures, backbones, images in and out, the projection head. May import: errors, io."""
