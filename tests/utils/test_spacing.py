import pytest

from videomac.utils.spacing import evenly_spaced


@pytest.mark.parametrize(
    ("count", "length", "expected"),
    [(1, 9, [4]), (2, 8, [2, 6]), (3, 3, [0, 1, 2]), (4, 10, [1, 3, 6, 8]), (0, 5, [])],
)
def test_indices_are_the_middles_of_equal_parts(count: int, length: int, expected: list[int]) -> None:
    assert evenly_spaced(count, length) == expected
