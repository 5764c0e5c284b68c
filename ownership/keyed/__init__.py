"""The keyed watermark: secret key, feature maps, exact test. May import: attestation, watermark and below."""
