"""Audits of live endpoints on the loopback address: languages, the transcript, and endpoints that misbehave."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.command import Run
from support.encoders import Noisy, as_suspect, encoder
from support.http_server import Handler, serving
from support.sampling import examples

from ownership import audit
from ownership.auditing.session import queries
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import represent
from ownership.errors import SuspectError
from ownership.evidence.querying import ProblemCode
from ownership.io.canonical import canonical_json, sha256
from ownership.reports.report import Report
from ownership.suspects.endpoint.client import RemoteEncoder
from ownership.suspects.endpoint.endpoint import host_of, load_endpoint
from ownership.suspects.endpoint.protocols import APIS, read_answer
from ownership.suspects.endpoint.transcript import CachedEndpoint, Transcript
from ownership.verdict.records import AuditOptions
from ownership.verdict.rule import Verdict


@pytest.fixture(scope="module")
def near(victim: Encoder) -> Noisy:
    return Noisy(victim, 7, 0.002)


@pytest.fixture(scope="module")
def direct(claim: Claim, near: Noisy) -> Report:
    suspect = as_suspect(near)
    return audit(claim, suspect)


# ------------------------------------------------------------------------------------------------ audits and resuming


@pytest.mark.parametrize("api", sorted(APIS))
def test_an_audit_in_every_language(api: str, claim: Claim, near: Noisy, direct: Report, tmp_path: Path) -> None:
    """The statistics of the encoder itself; the report names the host, and of the address nothing more."""
    with serving(near) as (server, url):
        report = audit(claim, load_endpoint(url, tmp_path / "t", token="s3same", api=api, model="resnet"))
    assert report.verdict is direct.verdict is Verdict.SUPPORTED
    for x, y in zip(report.results, direct.results, strict=True):
        assert (x.name, x.value) == (y.name, pytest.approx(y.value, rel=1e-4, abs=1e-4))
    assert server.images == report.findings.queries == direct.findings.queries == queries(claim)[0]
    headers, body = server.requests[0]
    assert headers["Authorization"] == "Bearer s3same"
    assert body.get("model") == (None if api == "turnmark" else "resnet")
    kept = Transcript(tmp_path / "t", RemoteEncoder(url=url, api=api, model="resnet"))
    port = server.server_address[1]
    said = report.suspect
    assert (said.format, said.host, said.api) == ("endpoint", f"127.0.0.1:{port}", api)
    assert (said.sha256, said.size_bytes, len(kept)) == (kept.sha256, kept.size, server.images)
    everything = json.dumps(report.to_dict()) + "".join(p.read_bytes().decode("latin-1") for p in kept.folder.iterdir())
    assert "s3cret" not in everything
    assert "s3same" not in everything
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))).to_dict() == report.to_dict()


def test_a_finished_audit_is_repeated_from_its_transcript(claim: Claim, near: Noisy, tmp_path: Path) -> None:
    """Without the endpoint, to the same bytes."""
    with serving(near) as (server, url):
        first = audit(claim, load_endpoint(url, tmp_path / "t"))
        session = server.images
        again = audit(claim, load_endpoint(url, tmp_path / "t"))
        assert server.images == session
    gone = audit(claim, load_endpoint(url, tmp_path / "t"))
    assert canonical_json(gone.to_dict()) == canonical_json(again.to_dict()) == canonical_json(first.to_dict())


def test_an_interrupted_audit_goes_on_and_pays_nothing_twice(
    claim: Claim, near: Noisy, direct: Report, tmp_path: Path
) -> None:
    """Cut off three times, once within the repeat check: the endpoint answers each question once."""
    folder = tmp_path / "t"
    with serving(near) as (server, url):
        server.misbehaviour = lambda h: h.reply(402, b"")
        spent = 0
        for good in (3, 5, 10_000):
            server.requests.clear()
            server.good = good
            before = server.images
            if good < 1000:
                with pytest.raises(SuspectError, match="HTTP 402") as e:
                    audit(claim, load_endpoint(url, folder))
                assert f"{server.images} answers are kept" in e.value.hint
                assert server.images > before
            else:
                report = audit(claim, load_endpoint(url, folder))
            spent = server.images
        assert spent == direct.findings.queries
        assert report.verdict is direct.verdict
        # one that is cut off at the repeats: they are questions of their own, and really asked
        server.requests.clear()
        server.images, probes = 0, sum(map(len, claim.probes.values()))
        other = tmp_path / "other"
        server.good = (
            sum(-(-min(256, len(s) - i) // 64) for s in claim.probes.values() for i in range(0, len(s), 256)) + 2
        )
        with pytest.raises(SuspectError, match="HTTP 402"):
            audit(claim, load_endpoint(url, other))
        assert probes < server.images < direct.findings.queries
        server.good = 10_000
        assert audit(claim, load_endpoint(url, other)).verdict is direct.verdict
        assert server.images == direct.findings.queries


def test_an_endpoint_that_answers_at_random_is_noticed_through_a_transcript(claim: Claim, tmp_path: Path) -> None:
    """The repeat check is not answered out of the transcript."""
    base = encoder(1)

    def moody(images: torch.Tensor) -> torch.Tensor:
        return base(images) + 0.05 * torch.randn(len(images), 64)

    with serving(moody) as (_, url):
        report = audit(claim, load_endpoint(url, tmp_path / "t"))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [p.code for p in report.findings.problems] == [ProblemCode.UNSTABLE]


def test_early_looks_keep_their_answers_too(claim: Claim, victim: Encoder, tmp_path: Path) -> None:
    with serving(victim) as (server, url):
        early = audit(claim, load_endpoint(url, tmp_path / "t"), AuditOptions(stop_early=True))
        assert early.verdict is Verdict.SUPPORTED
        assert server.images == early.findings.queries < queries(claim)[0]
        whole = audit(claim, load_endpoint(url, tmp_path / "t"))
        assert whole.verdict is Verdict.SUPPORTED
        assert server.images <= queries(claim)[0] + early.findings.queries * 0.1


# ----------------------------------------------------------------------------------------------------- the transcript


def _answered(tmp_path: Path, digits: torch.Tensor) -> tuple[Path, RemoteEncoder]:
    folder = tmp_path / "t"
    with serving(encoder(1)) as (_, url):
        remote = RemoteEncoder(url=url, batch_size=8)
        represent(CachedEndpoint(remote, Transcript(folder, remote)), digits[:16])
    return folder, remote


@pytest.fixture
def images(digits: Any) -> torch.Tensor:
    found: torch.Tensor = digits.images
    return found


def test_what_a_transcript_holds(images: torch.Tensor, tmp_path: Path) -> None:
    folder, _remote = _answered(tmp_path, images)
    assert sorted(p.name for p in folder.iterdir()) == ["000000.safetensors", "000001.safetensors", "transcript.json"]
    about = json.loads((folder / "transcript.json").read_text())
    assert set(about) == {"format", "host", "api", "model", "address_sha256"}
    first = load_file(folder / "000000.safetensors")
    assert {k: tuple(v.shape) for k, v in first.items()} == {
        "images": (8, 32),
        "occurrences": (8,),
        "rows": (8, 64),
        "request_sha256": (32,),
        "reply_sha256": (32,),
    }
    torch.testing.assert_close(first["rows"], represent(encoder(1), images[:8]), atol=1e-5, rtol=1e-5)


def test_its_digest_is_of_all_files(images: torch.Tensor, tmp_path: Path) -> None:
    folder, remote = _answered(tmp_path, images)
    expected = sha256(canonical_json({p.name: sha256(p.read_bytes()) for p in folder.iterdir()}))
    assert Transcript(folder, remote).sha256 == expected


def _truncate(folder: Path) -> None:
    path = folder / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def _foreign(folder: Path) -> None:
    (folder / "000001.safetensors").write_bytes(
        (folder / "000000.safetensors").read_bytes().replace(b"occurrences", b"occurrencez")
    )


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (_truncate, "000001.safetensors is damaged"),
    "other tensors": (_foreign, "000001.safetensors is damaged"),
    "no head": (lambda f: (f / "transcript.json").unlink(), "is no transcript"),
    "head is no json": (lambda f: (f / "transcript.json").write_bytes(b"{"), "not valid JSON"),
    "another endpoint": (lambda f: (f / "transcript.json").write_bytes(b"{}"), "answers of another endpoint"),
}


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_a_damaged_transcript_is_one_clear_line(name: str, images: torch.Tensor, tmp_path: Path) -> None:
    folder, remote = _answered(tmp_path, images)
    change, said = DAMAGED[name]
    change(folder)
    with pytest.raises(SuspectError, match=said) as e:
        Transcript(folder, remote)
    assert e.value.hint


def test_two_audits_do_not_write_into_one_transcript(images: torch.Tensor, tmp_path: Path) -> None:
    with serving(encoder(1)) as (_, url):
        remote = RemoteEncoder(url=url)
        one, two = (CachedEndpoint(remote, Transcript(tmp_path / "t", remote)) for _ in range(2))
        represent(one, images[:4])
        with pytest.raises(SuspectError, match="another audit writes into"):
            represent(two, images[4:8])


# ---------------------------------------------------------------------------------------------------- misbehaviours


def _drip(body: bool) -> Callable[[Handler], None]:
    """A byte now and then, for ever: no pause is long enough for a socket's timeout."""

    def run(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 100000\r\n\r\n" if body else b"X-Slow: "))
        for _ in range(60):
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(0.1)

    return run


def _endless(handler: Handler) -> None:
    """Ten gigabytes, if one lets it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**10))
    handler.end_headers()
    for _ in range(10**10 // 2**20):
        handler.wfile.write(b" " * 2**20)


def _other_dim(handler: Handler) -> None:
    n = len(handler.server.requests[-1][1]["images"])
    handler.reply(200, json.dumps({"representations": [[1.0, 2.0]] * n}).encode())


def _hang_up(handler: Handler) -> None:
    handler.connection.close()


LIES: dict[str, tuple[Callable[[Handler], None], str]] = {
    "redirect": (lambda h: h.reply(302, b"", Location="http://127.0.0.1:1/"), "HTTP 302"),
    "unauthorised": (lambda h: h.reply(401, b"\x1b[31mno"), "HTTP 401"),
    "busy for ever": (lambda h: h.reply(429, b"", Retry_After="0.2"), "no answer in 1.5 s .HTTP 429|took more than"),
    "asks for an odd pause": (lambda h: h.reply(429, b"", Retry_After="\xb2"), "no answer in"),
    "ten gigabytes": (_endless, "larger than"),
    "slow body": (_drip(body=True), "took more than 1.5 s"),
    "slow headers": (_drip(body=False), "took more than 1.5 s"),
    "nested": (lambda h: h.reply(200, b"[" * 100_000), "no JSON with representations"),
    "compressed": (lambda h: h.reply(200, b"x", Content_Encoding="gzip"), "compresses"),
    "other length": (_other_dim, "changes the length of its representations, from 64 to 2"),
    "hangs up": (_hang_up, "no answer in|took more than"),
}


@pytest.mark.parametrize("name", sorted(LIES))
def test_an_endpoint_that_fails_midway(name: str, claim: Claim, near: Noisy, tmp_path: Path) -> None:
    """One line and a hint; what was answered is kept, and the next attempt goes on from there."""
    few = replace(claim, probes={**claim.probes, "public": claim.probes["public"][:100]})
    with serving(near) as (server, url):
        server.misbehaviour, said = LIES[name]
        server.good = 1
        remote = RemoteEncoder(url=url, patience=1.5, timeout=1.0)
        suspect = load_endpoint(url, tmp_path / "t")
        patient = CachedEndpoint(remote, Transcript(tmp_path / "t", remote))
        start = time.monotonic()
        with pytest.raises(SuspectError, match=said) as e:
            audit(few, replace(suspect, encoder=patient))
        assert time.monotonic() - start < 60
        assert "64 answers are kept in" in e.value.hint
        assert "\n" not in e.value.message + e.value.hint
        assert "\x1b" not in e.value.message
        assert len(Transcript(tmp_path / "t", RemoteEncoder(url=url))) == 64


def test_no_secure_connection_is_said_at_once(images: torch.Tensor) -> None:
    with serving(encoder(1)) as (_, url):
        start = time.monotonic()
        with pytest.raises(SuspectError, match="no secure connection"):
            represent(RemoteEncoder(url=url.replace("http://", "https://")), images[:2])
        assert time.monotonic() - start < 10


def test_an_answer_may_be_no_longer_than_its_rows(images: torch.Tensor) -> None:
    """Once the length of a row is known, padding does not pass."""
    with serving(encoder(1)) as (server, url):
        server.misbehaviour, server.good = (lambda h: h.reply(200, b" " * 20_000)), 1
        remote = RemoteEncoder(url=url)
        represent(remote, images[:2])
        with pytest.raises(SuspectError, match="larger than 10240 bytes"):
            represent(remote, images[:2])


def test_what_a_killed_audit_left_is_no_obstacle(images: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/.transcript.json.x7d").write_bytes(b"{")
    assert len(_answered(tmp_path, images)[0].name) == 1


def test_nan_in_json_is_inconclusive(claim: Claim, tmp_path: Path) -> None:
    def nan(handler: Handler) -> None:
        n = len(handler.server.requests[-1][1]["images"])
        handler.reply(200, ('{"representations": [' + ", ".join(["[NaN" + ", 1.0" * 63 + "]"] * n) + "]}").encode())

    with serving(encoder(1)) as (server, url):
        server.misbehaviour, server.good = nan, 5
        report = audit(claim, load_endpoint(url, tmp_path / "t"))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [p.code for p in report.findings.problems] == [ProblemCode.NOT_FINITE]


RESPONSE_KINDS: dict[str, tuple[str, str, str]] = {
    "no list": ("openai", '{"data": 3}', "no JSON"),
    "a word": ("openai", '{"data": "ab"}', "no JSON"),
    "index twice": ("openai", '{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}', "no JSON"),
    "index missing": ("openai", '{"data": [{"embedding": [1]}, {"index": 1, "embedding": [1]}]}', "no JSON"),
    "index true": (
        "openai",
        '{"data": [{"index": false, "embedding": [1]}, {"index": true, "embedding": [1]}]}',
        "no JSON",
    ),
    "index 1 and 2": (
        "openai",
        '{"data": [{"index": 1, "embedding": [1]}, {"index": 2, "embedding": [1]}]}',
        "no JSON",
    ),
    "one row": ("openai", '{"data": [{"index": 0, "embedding": [1]}]}', "not 2 rows"),
    "null": ("openai", '{"data": [{"index": 0, "embedding": [null]}, {"index": 1, "embedding": [1]}]}', "not 2 rows"),
    "no base64": (
        "base64",
        '{"data": [{"index": 0, "embedding": "?"}, {"index": 1, "embedding": "AAAA"}]}',
        "not 2 rows",
    ),
    "own form to openai": ("base64", '{"representations": ["AAAA", "AAAA"]}', "no JSON"),
    "half a number": ("turnmark", '{"representations": ["AAAA", "AAAA"]}', "not 2 rows"),
    "a list": ("turnmark", "[]", "no JSON"),
    "huge number": ("turnmark", '{"representations": [[1' + "0" * 400 + "], [1]]}", "out of range"),
    "longer number": ("turnmark", '{"representations": [[1' + "0" * 5000 + "], [1]]}", "no JSON"),
}


@pytest.mark.parametrize("name", sorted(RESPONSE_KINDS))
def test_bad_answers(name: str) -> None:
    api, text, said = RESPONSE_KINDS[name]
    with pytest.raises(SuspectError, match=said):
        read_answer(APIS[api], text.encode(), 2)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["index", "embedding", "x"]), inner),
    max_leaves=8,
)
_ANY = st.binary(max_size=60) | _JSON.map(lambda value: json.dumps(value).encode())


@given(st.sampled_from(sorted(APIS)), _ANY)
@examples(200)
def test_any_answer_is_read_or_refused(api: str, data: bytes) -> None:
    for text in (data, b'{"representations": %b}' % data, b'{"data": [{"index": 0, "embedding": %b}]}' % data):
        try:
            rows = read_answer(APIS[api], text, 1)
        except SuspectError:
            continue
        assert rows.shape[0] == 1


def test_rows_follow_their_index_and_base64_is_read_everywhere() -> None:
    row = base64.b64encode(np.array([1.5, -2.0], "<f4").tobytes()).decode()
    text = json.dumps({"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": row}]})
    assert read_answer(APIS["openai"], text.encode(), 2).tolist() == [[1.5, -2.0], [3.0, 4.0]]
    assert read_answer(APIS["turnmark"], json.dumps({"representations": [row]}).encode(), 1).tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://models.example/embed", "in the clear"),
        ("http://127.0.0.1.models.example/embed", "in the clear"),
        ("http://localhost.models.example/", "in the clear"),
        ("https://name:word@models.example/", "name or password"),
        ("https://", "no HTTP address"),
        ("ftp://models.example/", "no HTTP address"),
        ("https://[::1", "is no address"),
        ("https://models.example:99999/", "is no address"),
        ("https://models.example/\x1b[31m", "no HTTP address"),
    ],
)
def test_addresses_are_checked(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SuspectError, match=said) as e:
        load_endpoint(url, tmp_path / "t")
    assert "\x1b" not in e.value.message
    assert "word" not in e.value.message.replace("password", "")


def test_plain_http_is_for_this_machine_or_said() -> None:
    for url in ("http://localhost:8000/", "http://127.0.0.1/", "http://[::1]:8000/", "https://models.example/"):
        assert host_of(url)
    assert host_of("http://models.example/", allow_http=True) == "models.example"


def test_tokens_and_languages_are_checked(tmp_path: Path) -> None:
    for token in ("line\nbreak", "zwölf", "two words"):
        with pytest.raises(SuspectError, match="token contains invalid characters") as e:
            load_endpoint("https://models.example/", tmp_path / "t", token=token)
        assert token not in e.value.message
    with pytest.raises(SuspectError, match="unknown kind of endpoint"):
        load_endpoint("https://models.example/", tmp_path / "t", api="grpc")
    with pytest.raises(SuspectError, match="unknown kind of output"):
        load_endpoint("https://models.example/", tmp_path / "t", output_kind="guesses")
    assert "s3cret" not in repr(RemoteEncoder(url="https://models.example/", token="s3cret"))


# -------------------------------------------------------------------------------------------------------- the command


def test_the_command_audits_an_endpoint(
    run: Run, claim_folder: Path, victim: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fails midway with one line and exit 2, goes on when repeated, and writes of the address only its host."""
    monkeypatch.setenv("TURNMARK_TOKEN", "s3same")
    with serving(victim) as (server, url):
        server.misbehaviour, server.good = (lambda h: h.reply(402, b"")), 4
        folder = f"report-127.0.0.1_{server.server_address[1]}-endpoint"
        code, _, err = run("audit", url, "--claim", claim_folder)
        assert code == 2
        assert [line for line in err.splitlines() if line.startswith("error:")] == [
            "error: the endpoint refused: HTTP 402"
        ]
        assert "repeat the command to go on" in err
        assert "up to" in err
        assert "with --stop-early possibly only 250" in err
        paid = server.images
        server.misbehaviour = None
        code, out, _ = run("audit", url, "--claim", claim_folder, "--request-size", 32)
        assert code == 0
        assert out.startswith("SUPPORTED")
        report = json.loads((tmp_path / folder / "report.json").read_text())
        assert server.images == report["queries"] > paid
        assert all(headers["Authorization"] == "Bearer s3same" for headers, _ in server.requests)
    assert (
        report["command"]
        == f"turnmark audit http://127.0.0.1:{server.server_address[1]}/... --claim {claim_folder.name}"
    )
    for path in (tmp_path / folder).rglob("*.*"):
        assert b"s3cret" not in path.read_bytes()
        assert b"s3same" not in path.read_bytes()


def test_the_command_exports_probes_and_audits_what_was_recorded(
    run: Run, claim_folder: Path, victim: Encoder, tmp_path: Path
) -> None:
    from PIL import Image

    code, out, _ = run("claim", "probes", claim_folder, "--out", "probes", "--decoys", "digits[:300]")
    assert code == 0
    assert "pictures written: probes" in out
    files = sorted((tmp_path / "probes").glob("*.png"))
    pictures = torch.from_numpy(np.stack([np.array(Image.open(f)) for f in files])).permute(0, 3, 1, 2)
    np.save("recorded.npy", represent(victim, pictures).numpy())
    code, out, _ = run("audit", "recorded.npy", "--probe-folder", "probes", "--claim", claim_folder)
    assert code == 0
    assert out.startswith("SUPPORTED")
    report = json.loads((tmp_path / "report-recorded-npy/report.json").read_text())
    assert report["command"] == f"turnmark audit recorded.npy --probe-folder probes --claim {claim_folder.name}"
    assert report["suspect"]["format"] == "recorded"


@pytest.mark.parametrize(
    "options",
    [
        ("https://models.example/", "--probe-folder", "probes"),
        ("https://models.example/", "--arch", "tiny"),
        ("x.onnx", "--api", "openai"),
        ("x.onnx", "--transcript", "t"),
        ("x.npy", "--probe-folder", "probes", "--request-size", "8"),
        ("x.npy", "--probe-folder", "probes", "--stop-early"),
        ("x.npy", "--probe-folder", "missing"),
        ("http://models.example/",),
    ],
)
def test_options_that_do_not_fit_are_refused(options: tuple[str, ...], run: Run, claim_folder: Path) -> None:
    code, out, err = run("audit", *options, "--claim", claim_folder)
    assert (code, out) == (2, "")
    assert err.lower().count("error:") == 1
    assert "hint:" in err or "--help' for help" in err


def test_an_endpoints_report_is_reproduced_from_its_transcript(
    run: Run, claim_folder: Path, near: Noisy, tmp_path: Path
) -> None:
    """No party is asked: the answers are in the report's folder, and their digest is the suspect's."""
    with serving(near) as (server, url):
        assert run("audit", url, "--claim", claim_folder, "--api", "openai", "--api-model", "m", "--out", "r")[0] == 0
        session = len(server.requests)
        again = ("report", "reproduce", "r", "--claim", claim_folder, "--suspect", url)
        code, out, _ = run(*again)
        assert code == 0
        assert "reproduced: SUPPORTED" in out
        assert len(server.requests) == session
        code, _, err = run(*again, "--transcript", "nowhere")
        assert code == 6
        assert "this suspect is not the report's" in err
        assert len(server.requests) == session
    assert not Path("nowhere").exists()
