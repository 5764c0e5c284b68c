"""No secret of an owner is in anything that an audit, sealing or training gives away.

Secrets are looked for as raw bytes, in hexadecimal, in base64 at any alignment, and as the text of numbers. That the
search can fail is shown: a secret planted in what was given away is found in every spelling.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.claims import Sealed
from support.command import Run
from support.encoders import Noisy, as_suspect, encoder
from support.http_server import serving
from torch import Tensor, nn

from ownership import audit
from ownership.attestation.keys import load_signing_key
from ownership.auditing.probe_export import export_probes
from ownership.claims.claim import Claim
from ownership.encoders.images import three_channels
from ownership.evidence.responses import Responses
from ownership.reports.html import render_html
from ownership.sealing.redacted_copy import write_redacted_copy
from ownership.suspects.endpoint.endpoint import load_endpoint
from ownership.suspects.sandbox.encoder import SandboxedEncoder
from ownership.suspects.suspect import load_suspect
from ownership.watermark import WatermarkKey
from watermark_training.data import Data
from watermark_training.encoder_files import weights_bytes
from watermark_training.train_folder import describe_data, save_trained
from watermark_training.training import Trained

PASSPHRASE, TOKEN = "Apfelbaum-im-Schnee-1897", "tok-0b5e7c1f9d"


def spellings(secret: bytes) -> set[bytes]:
    """The bytes themselves, hexadecimal, base64 at each of its three alignments."""
    out = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + secret)
        first, last = -(-shift * 4 // 3), len(text) - 4  # what depends on other bytes is cut off
        out |= {text[first:last], base64.b64encode(bytes(shift) + secret, b"-_")[first:last]}
    return {s for s in out if len(s) >= 7}


def of_key(key: WatermarkKey) -> Iterator[bytes]:
    """The cuts, as text and as numbers of 64 bits; as numbers of 32 bits all beside each other: 4 bytes are too few."""
    for cut in key.sector_boundaries:
        yield from (repr(cut).encode(), struct.pack("<d", cut), struct.pack(">d", cut))
    yield from (struct.pack(f"{order}{len(key.sector_boundaries)}f", *key.sector_boundaries) for order in "<>")


def of_weights(module: nn.Module) -> Iterator[bytes]:
    """Pieces of every tensor, and some of its numbers as text."""
    for tensor in module.state_dict().values():
        flat = tensor.detach().flatten().numpy()
        for start in (0, len(flat) // 2, max(0, len(flat) - 8)):
            piece: NDArray[np.float32] = flat[start : start + 8]
            yield from (piece.astype("<f4").tobytes(), piece.astype("<f8").tobytes())
            yield from (repr(float(x)).encode() for x in piece if x != 0)


def of_images(images: Tensor, known: Tensor) -> Iterator[bytes]:
    """Whole images and single rows of pixels that no image of `known` has: as bytes, and as float32 in [0, 1]."""
    shown = {row.numpy().tobytes() for image in known for row in image.flatten(0, 1)}
    for image in images:
        yield image.numpy().tobytes()
        rows = sorted(image.flatten(0, 1), key=lambda r: -len(r.unique()))
        row = next((r for r in rows if r.numpy().tobytes() not in shown and len(r.unique()) >= 8), None)
        if row is not None:
            yield from (row.numpy().tobytes(), (row.float() / 255).numpy().tobytes())


def of_answers(responses: Responses) -> Iterator[bytes]:
    """The victim's answers to private images."""
    for row in responses.sets["private"][:20]:
        yield row[:8].astype("<f4").tobytes()


@dataclass
class Secrets:
    """What must not be given away: what it is -> its spellings."""

    spelled: dict[str, set[bytes]]

    @classmethod
    def of(cls, **secrets: Iterable[bytes]) -> Secrets:
        return cls({name: {s for x in values for s in spellings(x)} for name, values in secrets.items()})

    def found_in(self, data: bytes) -> set[str]:
        """What leaked."""
        return {name for name, spelled in self.spelled.items() if any(s in data for s in spelled)}

    def without(self, *names: str) -> Secrets:
        return Secrets({name: s for name, s in self.spelled.items() if name not in names})


@pytest.fixture(scope="module")
def secrets(sealed: Sealed) -> Secrets:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    whole = Claim.load(sealed.folder)
    assert whole.watermark is not None
    assert whole.watermark.key is not None
    salts = json.loads((sealed.folder / "seal/salts.json").read_bytes())["salts"]
    pem = sealed.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).splitlines()[1]
    made = Secrets.of(
        key=of_key(whole.watermark.key),
        predictor=of_weights(whole.watermark.predictor),
        images=of_images(whole.probes["private"], torch.cat([whole.probes["public"], whole.probes["rotated"]])),
        responses=of_answers(whole.responses["victim"]),
        salts=(bytes.fromhex(salt) for salt in salts.values()),
        signing=(sealed.key.private_bytes_raw(), pem[-40:]),
        words=(PASSPHRASE.encode(), TOKEN.encode()),
    )
    assert {n: len(s) > 5 for n, s in made.spelled.items()} == dict.fromkeys(made.spelled, True)
    return made


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNMARK_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("TURNMARK_TOKEN", TOKEN)


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def pixels_of(folder: Path) -> bytes:
    """All pictures of a folder, decoded."""
    images = [np.array(Image.open(io.BytesIO(p.read_bytes()))) for p in sorted(folder.glob("*.png"))]
    return b"".join(image.transpose(2, 0, 1)[0].tobytes() for image in images)


# the search itself


def test_a_planted_secret_is_found_in_every_spelling(secrets: Secrets) -> None:
    clean = bytes(range(256)) * 40 + b'{"plan": "of numbers", "value": 0.123456789}'
    assert not secrets.found_in(clean)
    for name, spelled in secrets.spelled.items():
        alone = Secrets({name: spelled})
        for s in sorted(spelled)[:: max(1, len(spelled) // 100)]:
            assert alone.found_in(clean[:5000] + s + clean[5000:]) == {name}


def test_a_planted_secret_is_found_through_base64_at_any_alignment(secrets: Secrets, sealed: Sealed) -> None:
    raw = sealed.key.private_bytes_raw()
    for before in range(6):
        assert secrets.found_in(base64.b64encode(b"x" * before + raw + b"yy")) == {"signing"}


def test_a_leak_in_a_real_report_is_found(sealed: Sealed, secrets: Secrets, tmp_path: Path) -> None:
    """As if a name, a message or a number carried it."""
    whole = Claim.load(sealed.folder)
    assert whole.watermark is not None
    assert whole.watermark.key is not None
    report = audit(whole, as_suspect(encoder(77), f"model {PASSPHRASE}"))
    assert secrets.found_in(render_html(report).encode()) == {"words"}
    leaking = replace(report, versions={**report.versions, "key": repr(whole.watermark.key.sector_boundaries[1])})
    leaking.save(tmp_path / "report.json")
    assert secrets.found_in((tmp_path / "report.json").read_bytes()) == {"words", "key"}
    salt = next(iter(json.loads((sealed.folder / "seal/salts.json").read_bytes())["salts"].values()))
    assert secrets.found_in(render_html(replace(report, command=salt)).encode()) == {"words", "salts"}


def test_the_claim_itself_is_full_of_them(sealed: Sealed, secrets: Secrets) -> None:
    found = set().union(*(secrets.found_in(data) for data in files_in(sealed.folder).values()))
    assert found == {"key", "predictor", "images", "responses", "salts"}
    key = sealed.public.with_suffix("").read_bytes()
    assert secrets.found_in(key) == {"signing"}


# audits


def _suspect(folder: Path, of: nn.Module) -> Any:
    (folder / "suspect.safetensors").write_bytes(weights_bytes(of, "tiny"))  # type: ignore[arg-type]
    return load_suspect(folder / "suspect.safetensors")


@pytest.mark.parametrize("options", [(), ("--json",), ("--paper-tests", "--stop-early"), ("--pdf",)])
def test_an_audit(options: tuple[str, ...], run: Run, sealed: Sealed, secrets: Secrets, tmp_path: Path) -> None:
    from ownership.reports.pdf import find_browser

    if options == ("--pdf",):
        try:
            find_browser()
        except Exception as e:
            pytest.skip(f"{e}")
    (tmp_path / "suspect.safetensors").write_bytes(weights_bytes(encoder(77), "tiny"))
    code, out, err = run("audit", "suspect.safetensors", "--claim", sealed.folder, "--out", "report", *options)
    assert code == 1
    written = files_in(tmp_path / "report")
    assert {"report.json", "report.html"} <= set(written)
    for name, data in {**written, "stdout": out.encode(), "stderr": err.encode()}.items():
        assert len(data) > 1 or name == "stderr"
        assert not secrets.found_in(data), name


def test_the_suspects_process(
    sealed: Sealed, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is started with, what it can read of itself while it runs, and what lies in its folders."""
    started: list[bytes] = []
    popen = subprocess.Popen

    def recording(command: list[Any], **options: Any) -> Any:
        started.append(repr((command, options.get("env"), options.get("cwd"))).encode())
        assert options.get("env") is not None, "it inherits our environment"
        return popen(command, **options)

    monkeypatch.setattr("ownership.suspects.sandbox.encoder.subprocess.Popen", recording)
    suspect = _suspect(tmp_path, encoder(77))
    sandboxed: SandboxedEncoder = suspect.encoder
    seen: dict[str, bytes] = {}

    def watched(images: Tensor) -> Tensor:
        responses = sandboxed(images)
        process = sandboxed._running.process
        assert process is not None
        for name in ("cmdline", "environ"):
            try:
                seen[name] = Path(f"/proc/{process.pid}/{name}").read_bytes()
            except OSError:  # not Linux, or no process may look into it: then none sees a secret
                seen[name] = b""
        seen.update({f"folder/{n}": data for n, data in files_in(sandboxed._private).items()})
        return responses

    audit(Claim.load(sealed.folder), replace(suspect, encoder=watched))
    sandboxed.close()
    assert started
    assert len(seen) >= 3
    for name, data in {**seen, **{f"start {i}": s for i, s in enumerate(started)}}.items():
        assert not secrets.found_in(data), name
        assert b"TURNMARK_" not in data, name
        assert str(sealed.folder).encode() not in data, name


def test_probe_folders(sealed: Sealed, secrets: Secrets, tmp_path: Path) -> None:
    """Of a whole claim they show private images, as pictures among others; of a view they do not."""
    write_redacted_copy(sealed.folder, tmp_path / "view")
    for name, folder in (("of whole", sealed.folder), ("of view", tmp_path / "view")):
        export_probes(Claim.load(folder), tmp_path / name)
        assert not secrets.found_in(b"\n".join(files_in(tmp_path / name).values()))
    assert secrets.found_in(pixels_of(tmp_path / "of whole")) == {"images"}
    assert not secrets.found_in(pixels_of(tmp_path / "of view"))


def test_a_transcript(sealed: Sealed, secrets: Secrets, victim: nn.Module, tmp_path: Path) -> None:
    with serving(Noisy(victim, 7, 0.002)) as (_, url):
        report = audit(Claim.load(sealed.folder), load_endpoint(url, tmp_path / "transcript", token=TOKEN))
    written = files_in(tmp_path / "transcript")
    assert len(written) > 2
    for name, data in {**written, "page": render_html(report).encode()}.items():
        assert not secrets.found_in(data), name
        assert b"s3cret" not in data, "the address's query"


def test_a_view(sealed: Sealed, secrets: Secrets, tmp_path: Path) -> None:
    """It keeps back private images, the exact key and their salts; predictor, answers and other salts it has."""
    write_redacted_copy(sealed.folder, tmp_path / "view")
    salts = json.loads((sealed.folder / "seal/salts.json").read_bytes())["salts"]
    shown = json.loads((tmp_path / "view/seal/salts.json").read_bytes())["salts"]
    hidden = Secrets.of(salts=(bytes.fromhex(salt) for name, salt in salts.items() if name not in shown))
    kept_back = secrets.without("predictor", "responses", "salts")
    for name, data in files_in(tmp_path / "view").items():
        assert not kept_back.found_in(data), name
        assert not hidden.found_in(data), name


# sealing


def test_the_commands_around_a_seal(run: Run, claim_folder: Path, tmp_path: Path, sealed: Sealed) -> None:
    """What the commands from keygen to show print, and what they write to be published."""
    said: list[str] = []

    def call(*arguments: object) -> None:
        code, out, err = run(*arguments)
        assert code == 0, err
        said.extend((out, err))

    import shutil

    shutil.copytree(claim_folder, tmp_path / "claim")
    call("keygen", "owner.key")
    call("claim", "seal", "claim", "--signing-key", "owner.key", "--request", "claim.tsq")
    sealed.first.reply(tmp_path / "claim.tsq", tmp_path / "claim.tsr")
    call("claim", "attach", "claim", "claim.tsr")
    call("claim", "verify", "claim", "--public-key", "owner.key.pub")
    call("claim", "disclose", "claim", "representations/m1.safetensors", "--with-data", "--out-file", "shown.json")
    call("claim", "check-disclosure", "shown.json")
    call("claim", "redact", "claim", "--out", "view")
    call("claim", "show", "claim")
    whole = Claim.load(tmp_path / "claim")
    assert whole.watermark is not None
    assert whole.watermark.key is not None
    salts = json.loads((tmp_path / "claim/seal/salts.json").read_bytes())["salts"]
    key = load_signing_key(tmp_path / "owner.key", lambda: PASSPHRASE)
    secrets = Secrets.of(
        key=of_key(whole.watermark.key),
        predictor=of_weights(whole.watermark.predictor),
        images=of_images(whole.probes["private"], whole.probes["public"]),
        responses=of_answers(whole.responses["victim"]),
        salts=(bytes.fromhex(salt) for name, salt in salts.items() if name != "representations/m1.safetensors"),
        signing=(key.private_bytes_raw(),),
        words=(PASSPHRASE.encode(), TOKEN.encode()),
    )
    published = ["owner.key", "owner.key.pub", "claim.tsq", "claim.tsr", "shown.json"]
    published += [f"claim/seal/{name}" for name in ("statement.dsse.json", "owner.pub")]
    published += [p.relative_to(tmp_path).as_posix() for p in (tmp_path / "claim/seal/timestamps").iterdir()]
    assert len(published) == 8
    for name in published:
        assert not secrets.found_in((tmp_path / name).read_bytes()), name
    assert not secrets.found_in("".join(said).encode())
    # a payload in base64 inside a statement in JSON: looked for decoded, too
    payload = json.loads((tmp_path / "claim/seal/statement.dsse.json").read_bytes())["payload"]
    assert not secrets.found_in(base64.b64decode(payload))


# what an owner publishes of a trained encoder


def test_a_train_folder(trained: Trained, digits: Data, tmp_path: Path) -> None:
    assert trained.key is not None
    assert trained.predictor is not None
    private = digits.images[:256]
    save_trained(trained, tmp_path / "victim", describe_data("digits", private), onnx=True)
    secrets = Secrets.of(
        key=of_key(trained.key),
        predictor=of_weights(trained.predictor),
        images=of_images(private, private[:0]),
        words=(PASSPHRASE.encode(), TOKEN.encode()),
    )
    written = files_in(tmp_path / "victim")
    assert secrets.found_in(written.pop("predictor.safetensors")) == {"key", "predictor"}
    assert {"encoder.safetensors", "encoder.onnx", "config.json", "README.md"} <= set(written)
    for name, data in written.items():
        assert not secrets.found_in(data), name


def test_colour_images_are_looked_for_channel_by_channel(sealed: Sealed, secrets: Secrets) -> None:
    """Grey probes reach a suspect as three equal channels: one of them is enough to be found."""
    image = three_channels(Claim.load(sealed.folder).probes["private"][:1])[0]
    assert secrets.found_in(image.numpy().tobytes()) == {"images"}
