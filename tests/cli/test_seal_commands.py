"""`turnmark keygen`, `claim seal`, `attach`, `verify`, `disclose`, `check-disclosure`: from the key to a date."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.claims import Sealed
from support.command import Run
from support.encoders import encoder

from watermark_training.encoder_files import weights_bytes


def test_from_key_to_verdict_on_a_date(
    run: Run, sealed: Sealed, claim_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(claim_folder, tmp_path / "claim")
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "correct horse")
    code, out, err = run("keygen", "owner.key")
    assert (code, err) == (0, "")
    assert "owner.key.pub" in out
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "wrong")
    code, out, err = run("claim", "seal", "claim", "--signing-key", "owner.key")
    assert (code, out) == (2, "")
    assert "error: signing key: owner.key cannot be decrypted" in err
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "correct horse")
    code, out, err = run("claim", "seal", "claim", "--signing-key", "owner.key", "--request", "claim.tsq")
    assert code == 0
    assert out.startswith("sealed: claim, ")
    assert "does not prove when" in err
    code, out, err = run("claim", "seal", "claim", "--signing-key", "owner.key")
    assert code == 0
    assert out.startswith("already sealed with this key, and nothing changed")
    code, out, _ = run("claim", "verify", "claim")
    assert code == 0
    assert out.splitlines()[-1] == "timestamp    UNTIMESTAMPED: proves nothing about when"

    sealed.first.reply(tmp_path / "claim.tsq", tmp_path / "claim.tsr")
    code, _, err = run("claim", "attach", "claim", "claim.tsr", "--roots", sealed.second.roots)
    assert code == 6
    assert "no trusted authority vouches for it" in err
    code, out, _ = run("claim", "attach", "claim", "claim.tsr", "--roots", sealed.first.roots)
    assert code == 0
    assert "by CN=First authority: it covers this seal; its authority chains to a root you trust" in out
    whole = ("--public-key", "owner.key.pub", "--roots", sealed.first.roots)
    code, out, _ = run("claim", "verify", "claim", *whole, "--before", "2100-01-01")
    assert code == 0
    assert len(out.splitlines()) == 7
    code, out, err = run("claim", "verify", "claim", *whole, "--before", "2020-01-01")
    assert code == 6
    assert "not shown to be earlier than 2020-01-01" in err
    assert run("claim", "verify", "claim", "--before", "2020-01-01")[0] == 2  # no roots
    assert run("claim", "verify", "claim", *whole, "--before", "soon")[0] == 2
    assert run("claim", "verify", "claim", "--roots", "owner.key.pub")[0] == 2
    assert run("claim", "verify", "claim", "--public-key", sealed.public)[0] == 6

    Path("suspect.safetensors").write_bytes(weights_bytes(encoder(3), "tiny"))
    code, out, _ = run("audit", "suspect.safetensors", "--claim", "claim", "--roots", sealed.first.roots)
    assert code == 1
    assert "by CN=First authority: it covers this seal; its authority chains to a root you trust" in out
    assert run("audit", "suspect.safetensors", "--claim", "claim", "--roots", sealed.second.roots)[0] == 6

    code, out, _ = run("claim", "disclose", "claim", "key.json", "private/0", "--with-data", "--out-file", "shown.json")
    assert code == 0
    assert Path("shown.json").stat().st_mode & 0o077 == 0
    code, out, _ = run("claim", "check-disclosure", "shown.json", *whole, "--before", "2100-01-01")
    assert code == 0
    assert "part         key.json: sealed (128 bytes" in out
    Path("shown.json").write_bytes(Path("shown.json").read_bytes().replace(b'"index": ', b'"index": 1'))
    code, out, err = run("claim", "check-disclosure", "shown.json")
    assert code == 6
    assert "its path leads elsewhere" in err
    assert run("claim", "disclose", "claim", "salts.json", "--out-file", "x.json")[0] == 2


def test_a_key_without_a_passphrase_is_warned_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNMARK_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, _, err = run("keygen", "owner.key")
    assert code == 0
    assert "no passphrase" in err
    assert run("keygen", "owner.key")[0] == 2
