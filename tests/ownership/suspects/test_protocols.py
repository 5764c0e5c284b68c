"""Protocols of endpoints: what is read of an answer; addresses and tokens."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from ownership.errors import SuspectError
from ownership.suspects.endpoint.client import RemoteEncoder
from ownership.suspects.endpoint.endpoint import host_of, load_endpoint
from ownership.suspects.endpoint.protocols import APIS, error_text, read_answer

RESPONSE_KINDS: dict[str, tuple[str, str, str]] = {
    "no list": ("openai", '{"data": 3}', "no JSON"),
    "a word": ("openai", '{"data": "ab"}', "no JSON"),
    "index twice": ("openai", '{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}', "no JSON"),
    "index missing": ("openai", '{"data": [{"embedding": [1]}, {"index": 1, "embedding": [1]}]}', "no JSON"),
    "index in words": (
        "openai",
        '{"data": [{"index": "0", "embedding": [1]}, {"index": "one", "embedding": [1]}]}',
        "no JSON",
    ),
    "index in other digits": (
        "openai",
        '{"data": [{"index": "0", "embedding": [1]}, {"index": "\u0661", "embedding": [1]}]}',
        "no JSON",
    ),
    "index twice in two forms": (
        "openai",
        '{"data": [{"index": 0, "embedding": [1]}, {"index": "0", "embedding": [1]}]}',
        "no JSON",
    ),
    "no index, one row": ("openai", '{"data": [{"embedding": [1]}]}', "not 2 rows"),
    "no index, three rows": (
        "openai",
        '{"data": [{"embedding": [1]}, {"embedding": [1]}, {"embedding": [1]}]}',
        "not 2",
    ),
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


def test_an_index_may_be_a_string_or_missing_everywhere() -> None:
    """Without one the rows are taken as they come."""
    strings = {"data": [{"index": "1", "embedding": [3, 4]}, {"index": "0", "embedding": [1, 2]}]}
    bare = {"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]}
    for answer in (strings, bare):
        assert read_answer(APIS["openai"], json.dumps(answer).encode(), 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "give a model", "type": "bad"}}', "give a model"),
        (b'{"error": "busy"}', "busy"),
        (b'{"message": "busy"}', "busy"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"loc": 1}]}', ""),
        (b"\n  upstream timed out\nmore", "upstream timed out"),
        (b"<!doctype html><h1>502</h1>", ""),
        (b'{"error": {"message": "cut o', ""),
        (b"[" * 100_000, ""),
        (b"\xff", "\ufffd"),
        (b"", ""),
    ],
)
def test_the_text_of_an_error_is_found(body: bytes, said: str) -> None:
    assert error_text(body) == said


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
