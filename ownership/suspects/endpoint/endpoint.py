"""An HTTP endpoint as a suspect. Its replies are kept in a transcript."""

from __future__ import annotations

from pathlib import Path

from ownership.suspects.endpoint.address import host_of
from ownership.suspects.endpoint.client import RemoteEncoder
from ownership.suspects.endpoint.transcript import CachedEndpoint, Transcript, about
from ownership.suspects.suspect import Suspect, check_output_kind


def load_endpoint(
    url: str,
    transcript: Path | str,
    *,
    token: str | None = None,
    api: str = "turnmark",
    model: str | None = None,
    output_kind: str = "representations",
    batch_size: int = 64,
    allow_http: bool = False,
) -> Suspect:
    """Open an endpoint as the suspect of one audit, without sending a query.

    After the audit, the SHA-256 of the transcript is the suspect's SHA-256 in the report.

    Args:
        url: address of the endpoint.
        transcript: folder for the replies; queries that it already contains are not sent again.
        token: bearer token.
        api: protocol of the endpoint, a name in `ownership.suspects.endpoint.protocols.APIS`.
        model: name of the endpoint's model.
        output_kind: kind of its output, a name in `OUTPUT_KINDS`.
        batch_size: images per request.
        allow_http: whether to transmit images and token to another machine without encryption.

    Raises:
        SuspectError: if address or transcript cannot be used.
    """
    check_output_kind(output_kind)
    host = host_of(url, allow_http=allow_http)
    remote = RemoteEncoder(url=url, token=token, api=api, model=model, batch_size=batch_size, allow_http=allow_http)
    kept = Transcript(Path(transcript), remote)
    said = {name: value for name, value in about(remote).items() if name in ("host", "api", "model")}
    return Suspect(
        name=host,
        format="endpoint",
        sha256="",
        size=0,
        architecture=None,
        encoder=CachedEndpoint(remote, kept),
        output_kind=output_kind,
        details=lambda: {**said, "sha256": kept.sha256, "bytes": kept.size},
    )


def command_words(url: str, api: str, model: str | None, *, allow_http: bool) -> list[str]:
    """Return the beginning of the command that repeats an audit, for the report: of the address only the host."""
    scheme = url.partition("://")[0].lower()
    words = ["turnmark", "audit", f"{scheme}://{host_of(url, allow_http=True)}/..."]
    words += ["--api", api] if api != "turnmark" else []
    words += ["--api-model", model] if model else []
    return [*words, *(["--allow-http"] if allow_http else [])]
