"""Letters that no font has are named once, and pictures are drawn all the same."""

from __future__ import annotations

import warnings

import matplotlib
from matplotlib import pyplot as plt

from afteredit.analysis.pictures import axes


def test_letters_without_a_font_are_named_once(caplog, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["DejaVu Sans"])
    axes._say_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            figure, axis = plt.subplots()
            axis.set_title("情感 ($USD) of $x^2$")
            assert axes.as_png(figure, 50).startswith(b"\x89PNG")
    (said,) = caplog.messages
    assert "no installed font has the letters 情感:" in said


def test_other_warnings_of_a_picture_are_passed_on(monkeypatch):
    monkeypatch.setattr(axes, "without_formulas", lambda figure: warnings.warn("crowded", stacklevel=1) or figure)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        axes.as_png(plt.figure(), 50)
    assert [str(warning.message) for warning in caught] == ["crowded"]
