import pytest

from videomac.utils.plots import font, smooth


def test_a_smoothed_curve_follows_its_values_from_the_first_on() -> None:
    assert smooth([3.0] * 200) == pytest.approx([3.0] * 200), "a constant stays itself, at the start too"
    step = smooth([0.0] * 100 + [1.0] * 100)
    assert step[:100] == [0.0] * 100 and step[100:] == sorted(step[100:]) and 0.2 < step[100] < 0.3
    assert step[-1] == pytest.approx(1, abs=1e-9), "a fiftieth of the curve is its memory"
    assert smooth([1.0, 5.0]) == [1.0, 5.0], "a short curve is itself"


def test_the_font_has_umlauts_and_other_alphabets() -> None:
    """What a font lacks it draws as one and the same box."""
    typeface = font(14)
    missing = bytes(typeface.getmask("\U000e0fff"))
    for letter in "äöüßÄÖÜéñøłčΩЖ":
        assert bytes(typeface.getmask(letter)) != missing, letter
