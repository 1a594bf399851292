from __future__ import annotations

import pytest

from videomac.errors import UserError
from videomac.utils.share import parse_share


def test_a_share_is_two_numbers() -> None:
    assert parse_share("part", "0/1") == (0, 1)
    assert parse_share("part", "3/256") == (3, 256)


@pytest.mark.parametrize("text", ["1/1", "2/1", "-1/2", "1", "a/b", "1/2/3", "1.0/2", " 0/1", "0/0", "٣/٤"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="part must be i/n"):
        parse_share("part", text)
