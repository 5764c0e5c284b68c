"""kill -9 at any moment of build, seal, attach, audit and sign: never half a claim or report, never a lost one.

A case kills the command before its N-th change to the file system, N drawn, or at a drawn time. Then what is there must
be whole, and the same command must bring it to its end. Seven cases in `make check`, two hundred in `make slow`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.claims import Sealed
from support.command import Run
from support.encoders import encoder

from ownership import audit
from ownership.attestation.statement import is_sealed
from ownership.auditing.probe_export import export_probes
from ownership.claims.claim import Claim
from ownership.encoders.images import represent
from ownership.errors import OwnershipError
from ownership.io.files import alone_in
from ownership.reports.html import save_report
from ownership.reports.report import Report
from ownership.reports.signature import verify_report
from ownership.sealing.create import seal_claim
from ownership.sealing.verify import verify_claim
from ownership.suspects.suspect import load_encoder
from watermark_training.data import Data
from watermark_training.encoder_files import weights_bytes

ROOT = Path(__file__).parents[2]
CASES = [("build", 0), ("seal", 0), ("seal", 2), ("attach", 1), ("recorded", 0), ("recorded", 2), ("sign", 0)]
SLOW = {"build": 45, "seal": 45, "attach": 30, "audit": 60, "sign": 30}
"""Numbers of cases; "recorded" is an audit of recorded representations, which starts no sandbox."""


@dataclass(frozen=True)
class Answer:
    """What came of one command."""

    code: int  # minus the signal, if one killed it
    changes: int  # of the file system, before its end
    seconds: float
    said: str


Ask = Callable[..., Answer]


@pytest.fixture(scope="session")
def query(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Runs a command in a fork of one warm process; None where it ended by itself."""
    said = tmp_path_factory.mktemp("said") / "said"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(ROOT / "tests/support/crash_driver.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TURNMARK_PASSPHRASE": ""},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    reader = process.stdout

    def call(folder: Path, *argv: object, **how: float | None) -> Answer:
        case = {"folder": str(folder), "argv": [*map(str, argv)], "said": str(said), **how}
        assert process.stdin is not None
        process.stdin.write(json.dumps(case) + "\n")
        process.stdin.flush()
        answer = Answer(**json.loads(reader.readline()), said=said.read_text())
        assert answer.code in ((2,) if "file_limit" in how else (0, 1, -9)), answer.said
        return answer

    yield call
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()


@dataclass(frozen=True)
class Work:
    """One command in a fresh folder, and what must be true of what it leaves."""

    argv: tuple[object, ...]
    prepare: Callable[[Path], None]
    whole: Callable[[Path], bool]  # raises if something is half there; whether the result is there


@pytest.fixture(scope="session")
def works(
    claim_folder: Path, sealed: Sealed, digits: Data, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Work]:
    place = tmp_path_factory.mktemp("crash")
    for name, part in (("private", slice(0, 60)), ("public", slice(300, 800))):
        (place / name).mkdir()
        for i, image in enumerate(digits.images[part]):
            Image.fromarray(image[0].numpy()).save(place / name / f"{i:04}.png")
    for i in range(11):
        (place / f"m{i}.safetensors").write_bytes(weights_bytes(encoder(40 + i), "tiny"))
    kinds = ["plain"] * 5 + ["watermarked"] * 5
    panel = [word for i, kind in enumerate(kinds) for word in ("--panel", f"{kind}:{place}/m{i}.safetensors")]
    build = ("claim", "build", place / "m10.safetensors", "--private", place / "private", "--public", place / "public")
    owner = sealed.folder.parent / "owner.key"
    reply = next((sealed.folder / "seal/timestamps").iterdir())
    suspect = place / "suspect.safetensors"
    save_file({k: v.contiguous() for k, v in encoder(1).state_dict().items()}, suspect)

    save_report(audit(Claim.load(claim_folder), load_encoder(suspect)), place / "unsigned")
    export_probes(Claim.load(claim_folder), place / "probes")
    shown = [np.array(Image.open(path)) for path in sorted((place / "probes").glob("*.png"))]
    rows = represent(encoder(1), torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2))
    np.save(place / "recorded.npy", rows.numpy())
    recorded = ("audit", place / "recorded.npy", "--probe-folder", place / "probes", "--claim", claim_folder)

    def claim_is_whole(folder: Path) -> bool:
        hidden = {p.name for p in folder.iterdir() if p.name.startswith(".")}
        assert {p.name for p in folder.iterdir()} - hidden <= {"claim"}
        return (folder / "claim").exists() and bool(Claim.load(folder / "claim").sha256)

    def seal_is_whole(folder: Path) -> bool:
        claim = Claim.load(folder / "claim")
        return claim.seal is not None

    def stamp_is_whole(folder: Path) -> bool:
        seal = Claim.load(folder / "claim").seal
        assert seal is not None
        return len(seal.timestamps) == 1

    def report_is_whole(folder: Path) -> bool:
        report, page = folder / "report/report.json", folder / "report/report.html"
        if page.exists():
            assert page.read_text().rstrip().endswith("</html>")
            assert report.exists(), "a page without its numbers"
        if report.exists():
            assert Report.load(report).verdict
        return report.exists() and page.exists()

    def signature_is_whole(folder: Path) -> bool:
        assert Report.load(folder / "report/report.json").verdict
        assert (folder / "report/report.html").read_text().rstrip().endswith("</html>")
        if is_sealed(folder / "report"):
            assert verify_report(folder / "report").checks
        return is_sealed(folder / "report")

    def unsigned(folder: Path) -> None:
        shutil.copytree(place / "unsigned", folder / "report")

    def unsealed(folder: Path) -> None:
        shutil.copytree(claim_folder, folder / "claim")

    def unstamped(folder: Path) -> None:
        shutil.copytree(sealed.folder, folder / "claim")
        shutil.rmtree(folder / "claim/seal/timestamps")

    return {
        "build": Work((*build, *panel, "--no-reference", "--out", "claim"), lambda _: None, claim_is_whole),
        "seal": Work(("claim", "seal", "claim", "--signing-key", owner), unsealed, seal_is_whole),
        "attach": Work(("claim", "attach", "claim", reply), unstamped, stamp_is_whole),
        "sign": Work(("report", "sign", "report", "--signing-key", owner), unsigned, signature_is_whole),
        "recorded": Work((*recorded, "--out", "report"), lambda _: None, report_is_whole),
        "audit": Work(("audit", suspect, "--claim", claim_folder, "--out", "report"), lambda _: None, report_is_whole),
    }


@pytest.fixture(scope="session")
def whole_run(query: Ask, works: dict[str, Work], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Answer]:
    """How many changes, and seconds, a command takes that is not killed."""
    known: dict[str, Answer] = {}

    def measure(name: str) -> Answer:
        if name not in known:
            folder = tmp_path_factory.mktemp(f"whole-{name}")
            works[name].prepare(folder)
            known[name] = query(folder, *works[name].argv)
            assert known[name].changes > 2
            assert works[name].whole(folder)
        return known[name]

    return measure


@pytest.fixture
def known(name: str, whole_run: Callable[[str], Answer]) -> Answer:
    """The whole run of the command that a test is about."""
    return whole_run(name)


def run_case(name: str, i: int, query: Ask, works: dict[str, Work], known: Answer, folder: Path) -> None:
    work, rng = works[name], random.Random(f"{name}{i}")
    work.prepare(folder)
    if i % 3 < 2:
        killed = query(folder, *work.argv, kill_at=rng.randint(1, known.changes))
        assert killed.code == -9
    else:
        query(folder, *work.argv, after=rng.uniform(0, known.seconds))
    done = work.whole(folder)
    if name == "build" and done:
        return  # built whole: the same command would rightly refuse to overwrite it
    before = _content(folder) if done else None
    query(folder, *work.argv)
    assert work.whole(folder)
    if before is not None:
        assert {k: v for k, v in _content(folder).items() if k in before} == before, "what was whole was changed"
    if name in ("seal", "attach"):
        assert verify_claim(folder / "claim").checks, "leftovers of the killed run are in the way"
    if name == "sign":
        assert verify_report(folder / "report").checks


def _content(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files if not _hidden(p.relative_to(folder))}


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


@pytest.mark.parametrize(("name", "i"), CASES)
def test_killed(name: str, i: int, query: Ask, works: dict[str, Work], known: Answer, tmp_path: Path) -> None:
    run_case(name, i, query, works, known, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_killed_two_hundred_times(name: str, query: Ask, works: dict[str, Work], known: Answer, tmp_path: Path) -> None:
    for i in range(SLOW[name]):
        (tmp_path / str(i)).mkdir()
        run_case(name, i, query, works, known, tmp_path / str(i))


@pytest.mark.parametrize("name", ["audit"])
def test_the_suspects_process_dies_with_a_killed_audit(
    name: str, query: Ask, works: dict[str, Work], known: Answer, tmp_path: Path
) -> None:
    """The worker must not outlive its audit (Linux: the kernel sends it a signal)."""
    query(tmp_path, *works["audit"].argv, after=known.seconds * 0.6)
    for _ in range(100):
        left = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _is_worker(p)]
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"left: {left}")


def _is_worker(process: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes()
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return False
    return b"sandbox/launch.py" in words and parent == 1


# ---- full disks, two writers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("build", 20_000),
        ("seal", 2000),
        ("attach", 400),
        ("sign", 3_000),
        ("recorded", 3_000),
        pytest.param("audit", 3_000, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    name: str, limit: int, query: Ask, works: dict[str, Work], known: Answer, tmp_path: Path
) -> None:
    """A limit on the size of files fails in the middle of a write, as a full disk does."""
    works[name].prepare(tmp_path)
    if name in ("audit", "recorded"):  # an older report is there
        query(tmp_path, *works[name].argv)
    before = _content(tmp_path)
    answer = query(tmp_path, *works[name].argv, file_limit=limit)
    lines = answer.said.splitlines()
    assert [line.startswith("error: cannot write") for line in lines].count(True) == 1, answer.said
    assert "Traceback" not in answer.said
    assert _content(tmp_path) == before
    assert not [p for p in tmp_path.rglob(".*") if p.name != ".lock"], "half-written files were left"


def test_two_claims_for_one_folder(claim: Claim, tmp_path: Path) -> None:
    """One wins, the other says so."""
    ends = _both(lambda: claim.save(tmp_path / "claim"), lambda: claim.save(tmp_path / "claim"))
    assert sorted(end is None for end in ends) == [False, True]
    (lost,) = [end for end in ends if end is not None]
    assert "written by another run meanwhile" in str(lost) or "exists already" in str(lost)
    assert Claim.load(tmp_path / "claim").sha256 == claim.sha256 or claim.sha256 == ""


def test_two_seals_for_one_claim(claim_folder: Path, tmp_path: Path) -> None:
    from ownership.attestation.keys import load_signing_key, make_signing_key

    shutil.copytree(claim_folder, tmp_path / "claim")
    keys = []
    for name in ("a.key", "b.key"):
        make_signing_key(tmp_path / name)
        keys.append(load_signing_key(tmp_path / name, str))
    ends = _both(*(lambda k=k: seal_claim(tmp_path / "claim", k) for k in keys))  # type: ignore[misc]
    assert sum(end is None for end in ends) == 1, ends
    assert Claim.load(tmp_path / "claim").seal is not None
    assert verify_claim(tmp_path / "claim").checks


def test_two_audits_into_one_folder(run: Run, claim_folder: Path, tmp_path: Path) -> None:
    Path("x.onnx").write_bytes(b"x")
    with alone_in(tmp_path / "report", OwnershipError):
        code, _, err = run("audit", "x.onnx", "--claim", claim_folder, "--out", "report")
    assert code == 2
    assert "another run is writing into report" in err


def _both(*calls: Callable[[], object]) -> list[OwnershipError | None]:
    """Runs both at once; what each raised."""
    barrier = threading.Barrier(len(calls))
    ends: list[OwnershipError | None] = [None] * len(calls)

    def go(i: int, call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except OwnershipError as e:
            ends[i] = e

    threads = [threading.Thread(target=go, args=(i, call)) for i, call in enumerate(calls)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return ends
