"""Sign a report, and verify one, check by check (docs/format.md).

```
report-folder/
├── report.json           the numbers; no date in it: auditing again gives the same bytes
├── report.html           the page that they render to, with the chain of custody once it is signed
└── seal/                 statement.dsse.json, auditor.pub, timestamps/*.tsr (ownership.attestation.statement)
```
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ownership.attestation.dsse import sign
from ownership.attestation.keys import fingerprint, load_public_key, public_pem
from ownership.attestation.statement import (
    ENVELOPE,
    SignedStatement,
    in_toto,
    is_sealed,
    open_in_toto,
    read_part,
    read_replies,
)
from ownership.attestation.trust import StatementVerification, Trust
from ownership.errors import OwnershipError, ReportError, ReportIntegrityError
from ownership.io.canonical import parse_canonical, sha256
from ownership.io.checks import Check
from ownership.io.files import clear_leftovers, new_folder, read_bytes, write_bytes
from ownership.io.text import printable
from ownership.reports.custody import Custody, examined, state
from ownership.reports.html import render_html, renderer
from ownership.reports.report import Report

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.x509 import Certificate

PREDICATE_TYPE = "urn:uuid:34e98faa-e549-4ad3-b364-9655728264bd"
PUBLIC_KEY = "auditor.pub"
NUMBERS, PAGE = "report.json", "report.html"
UNSIGNED = "UNSIGNED: no auditor signed this report; anyone with write access can replace it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSeal(SignedStatement):
    """A report's signature, good, and of this very report and page."""

    error: ClassVar[type[OwnershipError]] = ReportIntegrityError
    covers: ClassVar[str] = f"{NUMBERS} and {PAGE}"
    signer: ClassVar[str] = "auditor"
    secret: ClassVar[bool] = False

    custody: Custody


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportVerification(StatementVerification):
    """The checks that a report passed; `signer` is empty and there are no timestamps if it is not signed.

    Attributes:
        digest: SHA-256 of `report.json`.
    """

    digest: str


def statement(digests: dict[str, str], custody: Custody) -> bytes:
    """Returns what is signed about a report; `digests` are of its two files."""
    return in_toto({name: digests[name] for name in (NUMBERS, PAGE)}, PREDICATE_TYPE, custody.to_dict())


def open_statement(envelope: bytes, key: Ed25519PublicKey, digests: dict[str, str]) -> ReportSeal:
    """Returns the seal in an envelope signed with `key`, if it is of files with these digests; timestamps unchecked.

    Raises:
        ReportIntegrityError: if signature or statement are not what they should be.
    """

    def rebuild(content: dict[str, Any]) -> bytes:
        signed = {s["name"]: s["digest"]["sha256"] for s in content["subject"]}
        return statement(signed, Custody.from_dict(content["predicate"], fingerprint(key)))

    content = open_in_toto(envelope, key, PREDICATE_TYPE, rebuild, ReportIntegrityError)
    for entry in content["subject"]:
        if entry["digest"]["sha256"] != digests[entry["name"]]:
            raise ReportIntegrityError(
                f"seal: it is of another {entry['name']} ({printable(entry['digest']['sha256'])[:16]}…), this one is "
                f"{digests[entry['name']][:16]}…",
                "it was changed after it was signed, or the seal is not its own",
            )
    custody = Custody.from_dict(content["predicate"], fingerprint(key))
    return ReportSeal(public_key_sha256=custody.public_key_sha256, envelope=envelope, custody=custody)


def signed_report(folder: Path) -> ReportSeal:
    """Returns the seal of a signed report that verifies, its timestamps checked against no roots.

    Raises:
        ReportIntegrityError: if anything is wrong.
        ReportError: if it is not signed.
    """
    _, _, seal = _open(folder)
    if seal is None:
        raise ReportError("this report is not signed", "turnmark report sign")
    return seal


def sign_report(
    folder: Path | str,
    signing_key: Ed25519PrivateKey,
    *,
    auditor: str | None = None,
    received: Sequence[str] = (),
    now: datetime | None = None,
) -> tuple[ReportSeal, bool]:
    """Signs a report with its chain of custody, renders its page anew to show both, and writes `folder/seal`.

    Args:
        folder: the report's.
        signing_key: the auditor's.
        auditor: their name.
        received: how what was examined came, each as `ownership.reports.custody.state` reads it.
        now: what is stated as the time of signing; this machine's clock if not given.

    Returns:
        The seal, and whether it is new: a report that this key has signed, and that was not changed, stays as it is.

    Raises:
        ReportIntegrityError: if the report, or the seal it has, does not verify.
        ReportError: if another key, or the same with another custody, has signed it; or a statement cannot be read.
    """
    folder = Path(folder)
    report, page, seal = _open(folder)
    key = fingerprint(signing_key.public_key())
    custody = state(
        report,
        auditor=auditor,
        received=received,
        signed_at=now or datetime.now(UTC),
        public_key_sha256=key,
    )
    if seal is not None:
        if replace(custody, signed_at=seal.custody.signed_at) != seal.custody:
            raise ReportError(
                f"this report is signed already, with the key {seal.public_key_sha256} or another chain of custody",
                "a signature is never replaced: its timestamps would be lost; audit anew and sign that report",
            )
        return seal, False
    page = _rendered(report, custody)
    numbers = read_bytes(folder / NUMBERS, ReportError, "report")
    signed = sign(statement({NUMBERS: sha256(numbers), PAGE: sha256(page)}, custody), signing_key)
    clear_leftovers(folder / PAGE)
    write_bytes(folder / PAGE, page)  # a run that is killed here is mended by the same command
    with new_folder(folder / "seal") as new:
        new.chmod(0o755)  # for others to check, unlike a claim's
        write_bytes(new / ENVELOPE, signed)
        write_bytes(new / PUBLIC_KEY, public_pem(signing_key.public_key()))
    return signed_report(folder), True


def verify_report(
    folder: Path | str,
    *,
    public_key: Path | str | None = None,
    roots: Sequence[Certificate] = (),
    before: datetime | None = None,
) -> ReportVerification:
    """Verify a report, signed or not.

    The signature is checked before any number is used, and checks that need no trust come before those that do.

    Args:
        folder: the report's.
        public_key: file of the auditor's public key, from the auditor; without it, the signer is not known.
        roots: certificates of timestamp authorities that the verifier trusts.
        before: a trusted timestamp must be earlier.

    Raises:
        ReportIntegrityError: at the first check that fails.
        OwnershipError: if there is no report, the public key cannot be read, or `before` is asked for without roots.
    """
    folder = Path(folder)
    trust = Trust.given(public_key, roots, before)
    report, page, seal = _open(folder)
    digest = sha256(read_bytes(folder / NUMBERS, ReportIntegrityError, "report"))
    derived = f"{digest}: verdict {report.verdict.value} and every derived number follow from its values"
    checks = [Check("report", derived), _check_page(report, page, seal)]
    if seal is None:
        if public_key is not None or roots:
            raise ReportIntegrityError("this report is not signed", "its seal was removed, or: turnmark report sign")
        return ReportVerification(
            checks=(*checks, Check("signature", UNSIGNED)), digest=digest, signer="", timestamps=()
        )
    attested = trust.verify(seal)
    checks += [Check("custody", line) for line in seal.custody.lines()]
    checks.append(
        Check("signed", f"{seal.custody.signed_at}, by {seal.custody.auditor or 'a person not named'}: stated")
    )
    return ReportVerification(
        checks=(*checks, *attested.checks), digest=digest, signer=attested.signer, timestamps=attested.timestamps
    )


def read_report(data: bytes) -> Report:
    """Returns the report in canonical JSON; whatever else it is, raises ReportIntegrityError."""
    with _malformed():
        content = parse_canonical(data, ReportIntegrityError, f"report: {NUMBERS}")
        try:
            report = Report.from_dict(content)
        except ReportError as e:
            raise ReportIntegrityError(e.message, e.hint or "it was changed; get the original") from e
        examined(report)
        return report


def refuse_signed(folder: Path) -> None:
    """Raises ReportError if a report in this folder is signed: it would no longer verify if it were written anew."""
    if is_sealed(folder):
        raise ReportError(f"{printable(folder, 300)} holds a signed report", "choose another --out")


def load_report(path: Path | str) -> Report:
    """Returns the report in a folder, whose seal must be good if there is one, or in a file.

    Raises:
        ReportIntegrityError: if it does not verify.
        ReportError: if it is none.
    """
    path = Path(path)
    return _open(path)[0] if path.is_dir() else read_report(read_bytes(path, ReportError, "report"))


def _open(folder: Path) -> tuple[Report, bytes, ReportSeal | None]:
    """Report, page and seal, once the seal is good and of both files, and the numbers follow from each other."""
    if not (folder / NUMBERS).is_file() and not is_sealed(folder):
        raise ReportError(f"{printable(folder, 300)} is no report: it has no {NUMBERS}", "give the report's folder")
    files = {name: read_bytes(folder / name, ReportIntegrityError, "report") for name in (NUMBERS, PAGE)}
    seal = None
    if is_sealed(folder):
        public = read_part(folder, PUBLIC_KEY, ReportIntegrityError)
        key = load_public_key(public, ReportIntegrityError, f"seal: {PUBLIC_KEY}")
        envelope = read_part(folder, ENVELOPE, ReportIntegrityError)
        seal = open_statement(envelope, key, {name: sha256(data) for name, data in files.items()})
        _refuse_extras(folder / "seal")
        seal = replace(seal, replies=read_replies(folder, ReportIntegrityError)).under(())
    report = read_report(files[NUMBERS])
    if seal is not None and [(i.what, i.sha256) for i in seal.custody.items] != list(examined(report).items()):
        raise ReportIntegrityError(
            "seal: its chain of custody is not of what this report examined", "its auditor signed what is not true"
        )
    return report, files[PAGE], seal


def _check_page(report: Report, page: bytes, seal: ReportSeal | None) -> Check:
    """What is said of a page that its numbers render to; one of another renderer cannot be rendered again here."""
    stated = re.search(rb'<meta name="generator" content="([^"]{1,300})">', page[:4096])
    by = stated[1].decode(errors="replace") if stated else "an unknown version"
    if by != renderer():
        so = "" if seal is None else "; its bytes are signed"
        return Check("page", f"{PAGE}: NOT compared, it was rendered by {printable(by)}, not by {renderer()}{so}")
    if page != _rendered(report, None if seal is None else seal.custody):
        raise ReportIntegrityError(
            f"report: {PAGE} is not what {NUMBERS} renders to",
            "it was changed, or a seal was removed; the numbers are in report.json",
        )
    return Check("page", f"{PAGE}: exactly what {NUMBERS}{'' if seal is None else ' and the statement'} render to")


def _rendered(report: Report, custody: Custody | None) -> bytes:
    with _malformed():
        return render_html(report, custody).encode()


@contextmanager
def _malformed() -> Iterator[None]:
    """Whatever a report with derived numbers in order, but without what pages and digests need, leads to."""
    from jinja2 import TemplateError

    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, TemplateError) as e:
        raise ReportIntegrityError("report: a field is missing or malformed", "get the original") from e


def _refuse_extras(place: Path) -> None:
    """Raises ReportIntegrityError for a file in `seal/` that belongs to no seal."""
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if not path.is_dir() and name not in (ENVELOPE, PUBLIC_KEY) and not name.startswith("timestamps/"):
            raise ReportIntegrityError(f"seal: {printable(name)} is not covered", "remove it from the folder")
