"""`turnmark embed`, through the command."""

from __future__ import annotations

from pathlib import Path

import torch
from support.command import Run, error_line
from support.job import Job

from ownership.claims.claim import Claim
from watermark_training.loaded_encoder import load_trained


def test_embed_marks_a_trained_encoder_and_resumes(run: Run, job: Job, tmp_path: Path) -> None:
    plain = next(p for p in sorted((job.folder / "models").iterdir()) if load_trained(p).key is None)
    arguments = ["embed", plain, "digits[:200]", "--out", tmp_path / "watermarked", "--epochs", 1, "--size", 16]
    arguments += ["--watermark", "secret"]
    code, out, _ = run(*arguments)
    assert code == 0
    assert "embedded: " in out
    assert "sibling:PATH" in out
    watermarked = load_trained(tmp_path / "watermarked")
    assert watermarked.key is not None
    assert str(watermarked.key.sector_boundaries[0]) not in out
    assert watermarked.config["base_checkpoint"] == load_trained(plain).sha256
    assert "already embedded" in run(*arguments)[1]
    # a claim that would report the original model as a copy is refused
    panel = [x for p in sorted((job.folder / "models").iterdir()) if p != plain for x in ("--panel", p)]
    build = ["claim", "build", tmp_path / "watermarked", "--private", "digits[:200]", "--public", "digits[200:900]"]
    code, _, err = run(*build, *panel, "--size", 16, "--out", tmp_path / "claim")
    assert code == 2
    assert "base checkpoint of the victim is not in the panel" in error_line(err)
    assert not (tmp_path / "claim").exists()
    # unless the owner states that no one else has it
    kept = [*build, *panel, "--size", 16, "--out", tmp_path / "claim", "--no-reference", "--base-checkpoint-is-private"]
    code, _, err = run(*kept, "--n-probes", 250)
    assert code == 0, err
    assert "never published" in Claim.load(tmp_path / "claim").data["base_checkpoint"]


def test_training_goes_on_from_a_checkpoint(run: Run, job: Job, tmp_path: Path) -> None:
    plain = next(p for p in sorted((job.folder / "models").iterdir()) if load_trained(p).key is None)
    known = load_trained(plain)
    arguments = [
        "train",
        "digits[:128]",
        "--out",
        tmp_path / "grown",
        "--init-from",
        plain,
        "--epochs",
        1,
        "--size",
        16,
        "--watermark",
        "secret",
    ]
    code, out, err = run(*arguments, "--lr", 1e-9, "--batch-size", 64)
    assert code == 0, err
    assert "sibling:PATH" in out
    grown = load_trained(tmp_path / "grown")
    assert (grown.architecture, grown.config["base_checkpoint"]) == (known.architecture, known.sha256)
    before, after = (dict(x.encoder.named_parameters()) for x in (known, grown))  # type: ignore[attr-defined]
    assert all(torch.allclose(after[name], x, atol=1e-5) for name, x in before.items())
    assert grown.predictor is not None
    assert grown.predictor.pairs
    # independent encoders of such a victim begin with fresh weights
    panel = [
        "panel",
        tmp_path / "grown",
        "--private",
        "digits[:64]",
        "--others",
        "digits[200:264]",
        "--no-rotation-invariant",
    ]
    code, _, err = run(*panel[:4], "--others", "digits[200:240]", "--out", tmp_path / "panel", "--size", 16)
    assert code == 2
    assert "fewer than the victim's" in err
    assert "1 epochs may be too few for them (--epochs)" in " ".join(err.split())
    code, out, err = run(*panel, "--out", tmp_path / "longer", "--size", 16, "--epochs", 2)
    assert code == 0
    assert "may be too few" not in err
    assert "needs sibling fine-tunes" in err
    assert {load_trained(p).config["train"]["epochs"] for p in (tmp_path / "longer").iterdir()} == {2}
    # its sibling fine-tunes start from the same checkpoint, for as many epochs; a claim recognizes their stratum
    other = next(p for p in sorted((job.folder / "models").iterdir()) if p != plain)
    code, _, err = run(*panel, "--out", tmp_path / "longer", "--size", 16, "--epochs", 2, "--init-from", other)
    assert code == 2
    assert "did not start from" in error_line(err)
    code, out, err = run(*panel, "--out", tmp_path / "longer", "--size", 16, "--epochs", 2, "--init-from", plain)
    assert code == 0, err
    assert f"--panel sibling:{plain}" in out
    from_checkpoint = [load_trained(p) for p in sorted((tmp_path / "longer").glob("sibling_*"))]
    assert [(k.config["base_checkpoint"], k.config["train"]["epochs"]) for k in from_checkpoint] == [
        (known.sha256, 1)
    ] * 4
    build = ["claim", "build", tmp_path / "grown", "--size", 16, "--private", "digits[:64]"]
    build += ["--public", "digits[200:900]"]
    build += ["--panel", tmp_path / "longer", "--panel", f"sibling:{plain}", "--no-reference", "--n-probes", 250]
    code, _, err = run(*build, "--out", tmp_path / "claim")
    assert code == 0, err
    kinds = [m.kind for m in Claim.load(tmp_path / "claim").members]
    assert [kinds.count(k) for k in ("plain", "watermarked", "sibling")] == [5, 5, 5]
    for wrong, said in (
        (
            [*arguments[:3], tmp_path / "x", "--init-from", job.folder / "suspects/surrogate_mse.onnx"],
            "known architecture",
        ),
        ([*arguments, "--arch", "resnet18"], "resnet18"),
        ([*arguments[:3], tmp_path / "x", "--init-from", tmp_path / "nothing"], "nothing"),
    ):
        code, _, err = run(*wrong)
        assert code == 2
        assert said in error_line(err)
    assert not (tmp_path / "x").exists()


def test_embed_refuses_in_one_line(run: Run, job: Job, tmp_path: Path) -> None:
    onnx = next((job.folder / "models").glob("*/encoder.onnx"))
    code, _, err = run("embed", onnx, "digits[:64]", "--out", tmp_path / "x")
    assert code == 2
    assert "known architecture" in error_line(err)
    assert not (tmp_path / "x").exists()


def test_show_says_what_a_folder_holds_and_nothing_of_the_key(run: Run, job: Job) -> None:
    victim = job.folder / "models/victim"
    loaded = load_trained(victim)
    assert loaded.key is not None
    code, out, _ = run("show", victim)
    assert code == 0
    assert loaded.sha256 in out
    assert "simclr" in out
    assert "secret; the key is in predictor.safetensors" in out
    assert "watermark accuracy" in out
    for cut in loaded.key.sector_boundaries:
        assert f"{cut:.3f}"[1:] not in out
    surrogate = next(p for p in (job.folder / "models").iterdir() if "extraction" in load_trained(p).config)
    assert "extraction" in run("show", surrogate)[1]
    assert "a single file" in run("show", job.folder / "suspects/surrogate_mse.onnx")[1]
    code, _, err = run("show", job.folder)
    assert code == 2
    assert "not a train folder" in error_line(err)
