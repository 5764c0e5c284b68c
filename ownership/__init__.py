"""Turnmark's evidence: was this encoder copied from mine?

An auditor needs three names::

    from ownership import Claim, load_suspect, audit

    claim = Claim.load("claim/")  # verifies all digests before any number is used
    with load_suspect("suspect.onnx") as suspect:  # PyTorch or ONNX, in a sandboxed process
        report = audit(claim, suspect)
    print(report.verdict.value, report.adjusted_pvalues)

A suspect that is not a file comes from `load_recorded` (recorded representations) or `load_endpoint` (an HTTP API). An
owner makes the claim with `build_claim`, fixes its contents with `seal_claim`, and shows a part of it with
`write_redacted_copy` or `disclose`.

The rooms, from the top layer to the bottom layer (`pyproject.toml` has the import contracts):

- `auditing`: run an audit, repeat it, summarize several.
- `reports`, `sealing`: write and sign the report; seal, redact and verify the claim.
- `verdict`, `claims`: apply the decision rule; build and read the claim.
- `evidence`, `suspects`, `attestation`: compute statistics; open what an adversary wrote; sign and timestamp.
- `watermark`, `encoders`, `plan`, `stats`, `io`, `errors`: what the others share.

`__init__.pyi` lists the public names. Each is imported when it is first used, so `import ownership` does not import
torch.
"""

from ownership.io.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
