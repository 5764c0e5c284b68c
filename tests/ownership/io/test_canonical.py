"""JSON of claims and reports: what the parser refuses."""

from __future__ import annotations

import pytest

from ownership.errors import ClaimError
from ownership.io.canonical import parse_json


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775808", "1" + 400 * "0"])
def test_numbers_of_more_than_64_bits_are_refused(number: str) -> None:
    """No float can be made of some of them, which would end an audit with a traceback."""
    with pytest.raises(ClaimError, match="not valid JSON"):
        parse_json(f'{{"keys_tried": {number}}}'.encode(), ClaimError, "claim.json")
    assert parse_json(b'{"a": 9223372036854775807}', ClaimError, "claim.json") == {"a": 2**63 - 1}
