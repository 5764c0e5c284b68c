"""Representations that a third party recorded: the probe folder, the rows, and the audit that follows."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save
from support.encoders import SIDE, Noisy, as_suspect, encoder
from support.sampling import examples

from ownership import audit
from ownership.auditing.probe_export import DECOY_SHARE, export_probes
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, pixel_digests, png_bytes, represent, three_channels
from ownership.errors import DataError, OwnershipError, SuspectError, UnsafeSuspectError
from ownership.evidence.querying import ProblemCode, n_repeats
from ownership.plan import Plan
from ownership.reports.report import Report
from ownership.suspects.recorded.arrays import MAX_DIM, read_rows
from ownership.suspects.recorded.probe_folder import read_probe_folder
from ownership.suspects.recorded.recorded import load_recorded
from ownership.verdict.rule import Verdict

Rows = NDArray[np.float32]


@pytest.fixture(scope="module")
def probes(claim: Claim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "probes"
    export_probes(claim, folder)
    return folder


def pictures(folder: Path) -> torch.Tensor:
    """What a third party without the claim sees: the PNG files, in order."""
    from PIL import Image

    files = sorted(folder.glob("*.png"))
    return torch.stack([torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) for f in files])


def embedded(folder: Path, by: EncoderLike) -> Rows:
    rows: Rows = represent(by, pictures(folder), batch_size=7).numpy()
    return rows


def npy(rows: NDArray[np.floating] | NDArray[np.object_] | list[object]) -> bytes:
    out = io.BytesIO()
    np.save(out, np.asarray(rows), allow_pickle=True)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------ the probe folder


def test_every_question_is_a_picture_and_some_are_decoys(claim: Claim, probes: Path) -> None:
    images = torch.cat([three_channels(s) for s in claim.probes.values()])
    seen = Counter(pixel_digests(pictures(probes)))
    session = Counter(pixel_digests(images))
    twice = n_repeats(len(images), claim.plan)
    assert all(seen[d] >= n for d, n in session.items())
    assert sum(seen[d] for d in session) == len(images) + twice
    decoys = {d: n for d, n in seen.items() if d not in session}
    assert len(decoys) == pytest.approx(DECOY_SHARE * len(images), rel=0.1)
    assert max(decoys.values()) == 2  # being there twice does not tell a probe from a decoy
    folder = read_probe_folder(probes)
    assert list(folder.digests) == pixel_digests(pictures(probes))


def test_the_folder_says_nothing_about_a_picture(claim: Claim, probes: Path, tmp_path: Path) -> None:
    """Names are numbers, the order is fresh, sets lie spread evenly, and the texts name none of them."""
    manifest = json.loads((probes / "manifest.json").read_text())
    assert set(manifest) == {"format", "count", "height", "width", "return", "files"}
    assert sorted(p.name for p in probes.iterdir()) == [*sorted(manifest["files"]), "README.txt", "manifest.json"]
    words = (probes / "README.txt").read_text() + json.dumps({k: v for k, v in manifest.items() if k != "files"})
    for secret in ("private", "public", "watermark", "rotated", "decoy", "claim", claim.sha256 or "-----"):
        assert secret not in words.lower()
    export_probes(claim, tmp_path / "again")
    first, second = (pixel_digests(pictures(f)) for f in (probes, tmp_path / "again"))
    assert sum(a == b for a, b in zip(first, second, strict=False)) < 0.02 * len(first)
    times = [(probes / name).stat().st_mtime_ns for name in manifest["files"]]
    assert times == sorted(times)  # they follow the names, and nothing else
    for images in claim.probes.values():
        mine = set(pixel_digests(images))
        places = [i for i, d in enumerate(first) if d in mine]
        error = len(first) / (12 * len(places)) ** 0.5
        assert abs(np.mean(places) - (len(first) - 1) / 2) < 5 * error
    with pytest.raises(OwnershipError, match="exists already"):
        export_probes(claim, probes)


def test_decoys_of_ones_own(claim: Claim, tmp_path: Path) -> None:
    own = torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8)
    few = replace(claim, probes={"public": claim.probes["public"][:80]})
    export_probes(few, tmp_path / "probes", own)
    seen = set(pixel_digests(pictures(tmp_path / "probes")))
    assert set(pixel_digests(own)) <= seen
    with pytest.raises(DataError, match="decoys of 8x8 pixels, probes of 16x16"):
        export_probes(few, tmp_path / "other", own[..., :8, :8])


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _edit(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def _swap(folder: Path) -> None:
    a, b = folder / "000000.png", folder / "000001.png"
    first = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(first)


def _other_picture(side: int, data: bytes | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        from ownership.io.canonical import sha256

        picture = data or png_bytes(torch.zeros(3, side, side, dtype=torch.uint8))
        (folder / "000000.png").write_bytes(picture)
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["files"]["000000.png"] = sha256(picture)
        path.write_text(json.dumps(manifest))

    return change


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (_no_manifest, "is no probe folder"),
    "no json": (lambda f: (f / "manifest.json").write_bytes(b"[" * 5000) and None, "not valid JSON"),
    "other format": (_edit(format="x\x1b[31m"), r"of format x\\x1b"),
    "count": (_edit(count=10**12), "malformed"),
    "count is true": (_edit(count=True), "malformed"),
    "no files": (_edit(files=None), "malformed"),
    "paths": (_edit(files={"../secret.png": "0" * 64}, count=1), "malformed"),
    "picture missing": (lambda f: (f / "000001.png").unlink(), "does not exist"),
    "pictures swapped": (_swap, "000000.png does not match manifest.json"),
    "other size": (_other_picture(32), "no RGB picture of 16x16"),
    "no picture": (_other_picture(0, b"\x89PNG\r\n\x1a\nrest"), "no PNG picture"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_probe_folder_is_one_clear_line(name: str, claim: Claim, tmp_path: Path) -> None:
    few = replace(claim, probes={"public": claim.probes["public"][:20]}, plan=replace(claim.plan, repeat_share=0.0))
    export_probes(few, tmp_path / "probes")
    change, said = BROKEN[name]
    change(tmp_path / "probes")
    with pytest.raises(SuspectError, match=said) as e:
        read_probe_folder(tmp_path / "probes")
    assert e.value.hint
    assert "\x1b" not in e.value.message


# --------------------------------------------------------------------------------------------------------- the audit


@pytest.fixture(scope="module")
def near(victim: Encoder) -> Noisy:
    """A copy with some noise: its scores are no round numbers."""
    return Noisy(victim, 7, 0.002)


@pytest.fixture(scope="module")
def direct(claim: Claim, near: Noisy) -> Report:
    return audit(claim, as_suspect(near))


@pytest.mark.parametrize("form", ["npy", "float64", "fortran", "safetensors", "named", "parquet", "columns"])
def test_recorded_is_the_encoder_itself(
    form: str, claim: Claim, near: Noisy, direct: Report, probes: Path, tmp_path: Path
) -> None:
    """The same statistics, p-values and verdict, whatever the form of the file."""
    rows = embedded(probes, near)
    if form == "npy":
        data = npy(rows)
    elif form == "float64":
        data = npy(rows.astype("<f8"))
    elif form == "fortran":
        data = npy(np.asfortranarray(rows))
    elif form == "safetensors":
        data = save({"x": torch.from_numpy(rows)})
    elif form == "named":
        data = save({"representations": torch.from_numpy(rows), "extra": torch.zeros(2)})
    else:
        data = parquet(rows, lists=form == "parquet")
    (tmp_path / "rows").write_bytes(data)
    recorded = load_recorded(tmp_path / "rows", probes)
    report = audit(claim, recorded)
    assert report.verdict is direct.verdict is Verdict.SUPPORTED
    assert (report.findings.queries, report.findings.problems) == (direct.findings.queries, ())
    for x, y in zip(report.results, direct.results, strict=True):
        assert x.name == y.name
        assert x.value == pytest.approx(y.value, rel=1e-3, abs=1e-4)  # other batches, other last digits
        assert x.pvalue == pytest.approx(y.pvalue, rel=1e-2, abs=1e-4)
    assert report.suspect.format == "recorded"
    assert len(report.suspect.probes_sha256 or "") == len(report.suspect.sha256) == 64
    if form == "npy":
        again = audit(claim, load_recorded(tmp_path / "rows", probes))
        assert again.to_dict() == report.to_dict() == audit(claim, recorded).to_dict()


def parquet(rows: Rows, *, lists: bool) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    columns = {"embedding": pa.array(list(rows))} if lists else {f"d{i}": column for i, column in enumerate(rows.T)}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_a_recorded_independent_encoder_is_not_suspected(claim: Claim, probes: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(npy(embedded(probes, encoder(77))))
    assert audit(claim, load_recorded(tmp_path / "rows.npy", probes)).verdict is Verdict.NOT_SUPPORTED


def test_class_scores_can_be_recorded_too(claim: Claim, probes: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(npy(embedded(probes, encoder(77))))
    suspect = load_recorded(tmp_path / "rows.npy", probes, output_kind="logits")
    assert audit(claim, suspect).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(SuspectError, match="unknown kind of output"):
        load_recorded(tmp_path / "rows.npy", probes, output_kind="guesses")


def _shaken(rows: Rows) -> Rows:
    return rows + np.random.default_rng(0).normal(0, 0.05, rows.shape).astype(np.float32)


def _drifting(rows: Rows) -> Rows:
    return rows * np.linspace(1, 1.1, len(rows), dtype=np.float32)[:, None]


def _with_nan(rows: Rows) -> Rows:
    rows = rows.copy()
    rows[::20, 3] = np.nan  # decoys are not looked at
    return rows


UNTESTABLE: dict[str, tuple[Callable[[Rows], NDArray[np.floating]], ProblemCode]] = {
    "random": (_shaken, ProblemCode.UNSTABLE),
    "stateful": (_drifting, ProblemCode.UNSTABLE),
    "nan": (_with_nan, ProblemCode.NOT_FINITE),
    "too large for float16": (lambda r: np.where(r > 0, np.inf, r).astype(np.float16), ProblemCode.NOT_FINITE),
    "too large for float32": (lambda r: r.astype(np.float64) * 1e300, ProblemCode.NOT_FINITE),
    "constant": (lambda r: np.ones_like(r), ProblemCode.CONSTANT),
    "zero": (lambda r: np.zeros_like(r), ProblemCode.CONSTANT),
    "collapsed": (lambda r: r[:, :1] * np.ones((1, 64), np.float32), ProblemCode.COLLAPSED),
}


@pytest.mark.parametrize("name", sorted(UNTESTABLE))
def test_answers_that_cannot_be_tested_end_inconclusive(
    name: str, claim: Claim, victim: Encoder, probes: Path, tmp_path: Path
) -> None:
    change, code = UNTESTABLE[name]
    (tmp_path / "rows.npy").write_bytes(npy(change(embedded(probes, victim))))
    report = audit(claim, load_recorded(tmp_path / "rows.npy", probes))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert code in {p.code for p in report.findings.problems}


def test_rows_in_another_order_are_no_copy(claim: Claim, victim: Encoder, probes: Path, tmp_path: Path) -> None:
    """Permuted rows answer pictures with the answers to others; what is there twice gives it away."""
    rows = np.random.default_rng(1).permutation(embedded(probes, victim))
    (tmp_path / "rows.npy").write_bytes(npy(rows))
    report = audit(claim, load_recorded(tmp_path / "rows.npy", probes))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert ProblemCode.UNSTABLE in {p.code for p in report.findings.problems}


def test_another_claims_probes_are_said(claim: Claim, victim: Encoder, probes: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(npy(embedded(probes, victim)))
    other = {name: images.flip(-1).contiguous() for name, images in claim.probes.items()}
    with pytest.raises(SuspectError, match="belong to another claim"):
        audit(replace(claim, probes=other), load_recorded(tmp_path / "rows.npy", probes))


# ---------------------------------------------------------------------------------------------------------- bad files


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """An .npy file that is only a header."""
    size = "<H" if version == b"\x01\x00" else "<I"
    return b"\x93NUMPY" + version + struct.pack(size, len(text)) + text.encode("latin-1")


def _npz() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(2**24))
    return out.getvalue()


def _compressed_columns(rows: int, dim: int) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    out = io.BytesIO()
    flat = pa.array(np.zeros(rows * dim, np.float32))
    pq.write_table(pa.table({"e": pa.FixedSizeListArray.from_arrays(flat, dim)}), out, compression="zstd")
    return out.getvalue()


COUNT = 30
PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "random bytes": (lambda: b"\x17\x03" * 50, "unknown format"),
    "page": (lambda: b"<!DOCTYPE html>", "unknown format"),
    "npz bomb": (_npz, "zip archive"),
    "pickle": (lambda: pickle.dumps([1.0]), "pickle"),
    "objects": (lambda: npy(np.array([[None, "x"]] * COUNT, dtype=object)), r"got \|O"),
    "strings": (lambda: npy(np.array([["a", "b"]] * COUNT)), "got <U1"),
    "integers": (lambda: npy(np.ones((COUNT, 4), np.int64)), "got <i8"),
    "big-endian": (lambda: npy(np.ones((COUNT, 4), ">f4")), "got >f4"),
    "structure": (lambda: npy(np.zeros(COUNT, dtype=[("a", "<f4")])), "got a structure"),
    "1-D": (lambda: npy(np.ones(COUNT, np.float32)), "of shape 30"),
    "3-D": (lambda: npy(np.ones((COUNT, 2, 2), np.float32)), "of shape 30x2x2"),
    "one row short": (lambda: npy(np.ones((COUNT - 1, 4), np.float32)), "expected 30 rows, got 29"),
    "one row too many": (lambda: npy(np.ones((COUNT + 1, 4), np.float32)), "expected 30 rows, got 31"),
    "one number a row": (lambda: npy(np.ones((COUNT, 1), np.float32)), "rows of 1 numbers"),
    "no numbers": (lambda: npy(np.ones((COUNT, 0), np.float32)), "rows of 0 numbers"),
    "too wide": (lambda: npy(np.ones((COUNT, MAX_DIM + 1), np.float16)), "rows of 16385 numbers"),
    "huge shape": (lambda: header(PLAIN % f"{COUNT}, {10**15}"), "has 0 bytes for an array"),
    "cut off": (lambda: npy(np.ones((COUNT, 4), np.float32))[:-3], "bytes for an array"),
    "trailing bytes": (lambda: npy(np.ones((COUNT, 4), np.float32)) + b"x", "bytes for an array"),
    "long header": (lambda: header(" " * 20_000, b"\x02\x00"), "damaged"),
    "header of 4 GiB": (lambda: b"\x93NUMPY\x02\x00\xff\xff\xff\xffx", "damaged"),
    "version": (lambda: header(PLAIN % "30, 4", b"\x09\x00"), "damaged"),
    "no version": (lambda: b"\x93NUMPY", "damaged"),
    "two shapes": (lambda: header(PLAIN % "30, 4), 'shape': (30, 4"), "no header of a plain array"),
    "expression": (lambda: header("__import__('os').abort()"), "no header of a plain array"),
    "deep header": (lambda: header("(" * 9000), "no header of a plain array"),
    "safetensors of integers": (lambda: save({"x": torch.ones(COUNT, 4, dtype=torch.int32)}), "got int32"),
    "safetensors of 1-D": (lambda: save({"x": torch.ones(COUNT)}), "of shape 30"),
    "safetensors of two": (lambda: save({"a": torch.ones(COUNT, 4), "b": torch.ones(2)}), "2 tensors, none of them"),
    "safetensors of none": (lambda: save({}), "0 tensors"),
    "safetensors short": (lambda: save({"x": torch.ones(COUNT - 1, 4)}), "expected 30 rows, got 29"),
    "safetensors cut off": (lambda: save({"x": torch.ones(COUNT, 4)})[:-4], "damaged"),
    "parquet cut off": (lambda: b"PAR1" + b"x" * 40, "damaged"),
    "parquet of many rows": (lambda: _compressed_columns(10**6, 2), "expected 30 rows, got 1000000"),
    "parquet bomb": (lambda: _compressed_columns(COUNT, 10**6), "holds more than 30 rows"),
    "parquet of ragged lists": (
        lambda: _columns({"e": [[1.0, 2.0]] * (COUNT - 2) + [[1.0], [1.0, 2.0, 3.0]]}),
        "one length",
    ),
    "parquet of nothing": (lambda: _columns({"e": [[1.0, None]] * COUNT}), "one length"),
    "parquet with holes": (lambda: _columns({"e": [[1.0, 2.0]] * (COUNT - 1) + [None]}), "missing values"),
    "parquet of words": (lambda: _columns({"e": ["x"] * COUNT}), "floating-point"),
    "parquet of integers": (lambda: _columns({"e": [[1, 2]] * COUNT}), "floating-point"),
    "parquet of no columns": (lambda: _columns({}), "expected 30 rows, got 0"),
}


def _columns(columns: dict[str, list[object]]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_rows_are_one_clear_line(name: str, tmp_path: Path) -> None:
    make, said = BAD[name]
    (tmp_path / "rows").write_bytes(make())
    with pytest.raises(SuspectError, match=said) as e:
        read_rows(tmp_path / "rows", COUNT)
    assert e.value.hint
    assert "\n" not in e.value.message


def test_a_file_larger_than_any_rows_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "rows.npy", "wb") as f:
        f.truncate(10**13)  # sparse
    with pytest.raises(SuspectError, match="more than 30 rows"):
        read_rows(tmp_path / "rows.npy", COUNT)
    with pytest.raises(SuspectError, match="is a directory"):
        read_rows(tmp_path, COUNT)


def test_a_pickle_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(pickle.dumps([1.0]))
    with pytest.raises(UnsafeSuspectError):
        read_rows(tmp_path / "rows.npy", COUNT)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OwnershipError, match="needs pyarrow") as e:
        read_rows(tmp_path / "rows.parquet", COUNT)
    assert "turnmark[parquet]" in e.value.hint


GOOD = (npy(np.ones((COUNT, 3), np.float32)), save({"x": torch.ones(COUNT, 3)}))


@given(st.data())
@examples(300)
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever the bytes: rows of the stated shape, or an OwnershipError."""
    start = data.draw(st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"PAR1", *GOOD]))
    if start in GOOD:  # a good file with some bytes changed, and cut off or longer
        file = bytearray(start)
        for place in data.draw(st.lists(st.integers(0, min(len(file) - 1, 160)), max_size=4)):
            file[place] = data.draw(st.integers(0, 255))
        content = bytes(file[: data.draw(st.sampled_from([len(file), len(file) - 1, 90, 20]))])
    else:
        content = start
    content += data.draw(st.one_of(st.just(b""), st.binary(max_size=80)))
    path = tmp_path / "rows"
    path.write_bytes(content)
    try:
        read, rows = read_rows(path, COUNT)
    except OwnershipError:
        pass  # anything else fails the test
    else:
        assert read == content
        assert rows.shape[0] == COUNT
        assert rows.dtype == np.float32


def test_the_plan_says_what_is_asked_twice() -> None:
    assert n_repeats(1000, Plan()) == 50
