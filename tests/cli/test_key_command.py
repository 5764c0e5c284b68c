"""`turnmark key`, and training with a key: through the commands, with a timestamp authority on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import Run, error_line
from support.encoders import encoder
from support.tsa import Authority, make_authority

from ownership.attestation.timestamps import load_roots
from ownership.keyed.pool import KeyMaterial
from watermark_training.encoder_files import weights_bytes
from watermark_training.train_folder import load_trained


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "tsa", "Key authority")


@pytest.fixture
def pool(tmp_path: Path) -> str:
    x = np.random.default_rng(0).integers(0, 256, (120, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "pool.npz", x=x)
    return "pool.npz"


def test_a_key_is_made_anchored_and_shown(run: Run, pool: str, authority: Authority, tmp_path: Path) -> None:
    code, out, err = run("key", "new", pool, "--out", "key", "--n-probes", 100, "--directions", 4)
    assert code == 0, err
    assert "not anchored" in err
    first = KeyMaterial.load("key").key
    assert (first.probes, first.directions, first.pool.images) == (100, 4, 120)
    assert Path("key/commitment.json").read_bytes() == first.commitment
    assert first.commitment_sha256 in out
    modes = {p.name: p.stat().st_mode & 0o077 for p in Path("key").iterdir()}
    assert modes["key.json"] == modes["probes.safetensors"] == 0
    assert modes["commitment.json"] != 0
    assert run("key", "request", "key", "key.tsq")[0] == 0
    authority.reply(tmp_path / "key.tsq", tmp_path / "key.tsr")
    assert authority.accepts(tmp_path / "key.tsr", Path("key/commitment.json"))
    code, out, err = run("key", "anchor", "key", pool, "--reply", "key.tsr", "--roots", authority.roots)
    assert code == 0, err
    assert "Key authority" in out
    second = KeyMaterial.load("key")
    assert second.key == first.anchored(Path("key.tsr").read_bytes())
    assert not torch.equal(torch.from_numpy(second.key.probe_indices()), torch.from_numpy(first.probe_indices()))
    assert Path("key/commitment.tsr").read_bytes() == Path("key.tsr").read_bytes()
    stamped = second.key.timestamp(load_roots(authority.roots))
    assert stamped is not None
    assert stamped.trusted
    for roots, said in (((), "was not checked"), (("--roots", authority.roots), "which chains to")):
        code, out, err = run("key", "show", "key", *roots)
        assert (code, err) == (0, "")
        assert said in out
        assert second.key.secret.hex() not in out
        assert second.key.commitment_sha256 in out
    code, _, err = run("key", "anchor", "key", pool, "--reply", "key.tsr")
    assert (code, "anchored already" in error_line(err)) == (2, True)
    assert "anchored already" in error_line(run("key", "request", "key", "again.tsq")[2])
    assert run("key", "new", pool, "--out", "key")[0] == 2  # nothing is overwritten


def test_an_anchor_covers_exactly_the_commitment(run: Run, pool: str, authority: Authority, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("key", "new", pool, "--out", name, "--n-probes", 100)[0] == 0
    run("key", "request", "a", "a.tsq")
    authority.reply(tmp_path / "a.tsq", tmp_path / "a.tsr")
    before = Path("b/key.json").read_bytes()
    code, _, err = run("key", "anchor", "b", pool, "--reply", "a.tsr")
    assert code == 6
    assert "does not cover this commitment" in error_line(err)
    other = make_authority(tmp_path / "other", "Other authority")
    code, _, err = run("key", "anchor", "a", pool, "--reply", "a.tsr", "--roots", other.roots)
    assert code == 6
    assert "no trusted authority" in error_line(err)
    np.savez("other.npz", x=np.random.default_rng(1).integers(0, 256, (120, 16, 16), dtype=np.uint8))
    code, _, err = run("key", "anchor", "a", "other.npz", "--reply", "a.tsr")
    assert code == 2
    assert "not the ones that the key was made for" in error_line(err)
    assert Path("b/key.json").read_bytes() == before
    assert not Path("a/commitment.tsr").exists()


def test_an_authority_is_asked_at_once(run: Run, pool: str, authority: Authority, tmp_path: Path) -> None:
    """A real HTTP server answers; one that cannot be reached leaves nothing behind."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = tmp_path / "asked.tsq"
            query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            reply = authority.reply(query, tmp_path / "asked.tsr").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}/"
    Thread(target=server.serve_forever, daemon=True).start()
    asked = ("--timestamp", url, "--roots", authority.roots)
    code, out, err = run("key", "new", pool, "--out", "key", "--n-probes", 100, *asked)
    assert (code, err) == (0, ""), err
    assert "Key authority" in out
    assert KeyMaterial.load("key").key.anchor is not None
    run("key", "new", pool, "--out", "later", "--n-probes", 100)
    assert run("key", "anchor", "later", pool, *asked)[0] == 0
    server.shutdown()
    server.server_close()
    code, _, err = run("key", "new", pool, "--out", "none", "--timestamp", url)
    assert code == 2
    assert "cannot be reached" in error_line(err)
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("does not exist", ("key", "show", "nope")),
        ("is no key: it has no key.json", ("key", "show", ".")),
        ("is no key: it has no key.json", ("train", "digits", "--out", "x", "--key", ".")),
        ("does not exist", ("embed", "nope", "digits", "--out", "x", "--key", ".")),
        (
            "--reply FILE, --beacon URL and --beacon-reply FILE",
            ("key", "anchor", "key", "digits"),
        ),
        ("60 images are too few", ("key", "new", "digits[:60]", "--out", "x")),
        ("--key-seed is for a rotation watermark", ("train", "digits", "--out", "x", "--key-seed", 1)),
    ],
)
def test_wrong_input_is_one_line(run: Run, said: str, words: tuple[object, ...]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())
    assert not Path("x").exists()


SHORT = ("--arch", "tiny", "--epochs", 2, "--batch-size", 64, "--no-onnx", "--device", "cpu")


@pytest.mark.heavy
def test_training_and_embedding_with_a_key(run: Run, tmp_path: Path) -> None:
    assert run("key", "new", "digits[1200:1500]", "--out", "key", "--n-probes", 200)[0] == 0
    train = ("train", "digits[:200]", "--key", "key", *SHORT)
    code, out, err = run(*train, "--out", "victim")
    assert code == 0, err
    assert "keep victim/key.json secret" in out
    assert "key test on the encoder itself: p = " in out
    given, material = KeyMaterial.load("key"), load_trained("victim").material
    assert material is not None
    assert (material.key, material.digests) == (given.key, given.digests)
    assert json.loads(Path("victim/config.json").read_text())["train"]["watermark"] == "keyed"
    assert given.key.secret.hex() not in Path("victim/config.json").read_text() + Path("victim/README.md").read_text()
    assert "already trained" in run(*train, "--out", "victim")[1]
    run("key", "new", "digits[1200:1500]", "--out", "other")
    code, _, err = run(*train[:3], "other", *SHORT, "--out", "victim")
    assert code == 2
    assert "trained with another key" in error_line(err)
    assert "is for the keyed watermark" in " ".join(run(*train, "--out", "x", "--watermark", "none")[2].split())
    shown = run("show", "victim")[1]
    assert given.key.commitment_sha256 in shown
    embed = ("embed", "victim", "digits[:200]", "--key", "key", "--epochs", 1, "--no-onnx", "--device", "cpu")
    code, out, err = run(*embed, "--out", "embedded")
    assert code == 0, err
    assert load_trained("embedded").require_material().key == given.key
    code, _, err = run("train", "digits[:200]", "--key", "key", *SHORT, "--size", 24, "--out", "y")
    assert code == 2
    assert "the key is for images of 16 x 16, these are 24 x 24" in error_line(err)


def test_without_a_key_images_are_held_out_and_it_is_said(run: Run, tmp_path: Path) -> None:
    code, out, err = run("train", "digits[:400]", *SHORT, "--out", "victim")
    assert code == 0, err
    assert "not anchored in time, its probes are images that were held out" in out
    key = load_trained("victim").require_material().key
    assert (key.pool.images, key.anchor) == (100, None)
    code, _, err = run("train", "digits[:300]", *SHORT, "--out", "few")
    assert code == 2
    assert "too few to hold 100 out" in error_line(err)


@pytest.mark.heavy
def test_a_key_with_a_feature_encoder(run: Run, authority: Authority, tmp_path: Path) -> None:
    """Made, anchored, trained with, and claimed: the encoder is needed for training, and travels no further."""
    Path("public.safetensors").write_bytes(weights_bytes(encoder(3), "tiny"))
    new = ("key", "new", "digits[1200:1500]", "--out", "key", "--n-probes", 200, "--feature-encoder")
    code, _, err = run(*new, "public.safetensors")
    assert code == 0, err
    assert run("key", "request", "key", "key.tsq")[0] == 0
    authority.reply(tmp_path / "key.tsq", tmp_path / "key.tsr")
    assert run("key", "anchor", "key", "digits[1200:1500]", "--reply", "key.tsr")[0] == 0
    material = KeyMaterial.load("key")
    assert material.key.anchor is not None
    assert material.key.features is not None
    assert material.key.features.encoder_sha256 in run("key", "show", "key")[1]
    code, _, err = run("train", "digits[:200]", "--key", "key", *SHORT, "--out", "victim")
    assert code == 0, err
    assert not list(Path("victim").glob("feature_encoder*"))
    build = ("claim", "build", "victim", "--public", "digits[1200:1500]", "--no-reference")
    code, _, err = run(*build, "--out", "claim")
    assert code == 0, err
    assert material.key.features.encoder_sha256 in run("claim", "show", "claim")[1]
    Path("key/feature_encoder.safetensors").write_bytes(weights_bytes(encoder(4), "tiny"))
    code, _, err = run("train", "digits[:200]", "--key", "key", *SHORT, "--out", "other")
    assert code == 2
    assert "not the feature encoder that the key was committed to" in error_line(err)
    Path("key/feature_encoder.safetensors").unlink()
    code, _, err = run("train", "digits[:200]", "--key", "key", *SHORT, "--out", "other")
    assert code == 2
    assert "feature encoder is missing" in error_line(err)
    assert run(*new[:-1], "--feature-encoder", "nope.onnx")[0] == 2
