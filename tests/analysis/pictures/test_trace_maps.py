"""The picture of a causal trace shows the averages that it was given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from afteredit.analysis.pictures.trace_maps import draw_trace, trace_figure

ROLES = ("first subject token", "last subject token", "last token")


@pytest.fixture
def traced():
    means = {role: [i + 0.5, -0.5, i + 2.0, 0.0] for i, role in enumerate(ROLES)}
    by_role = {role: {"facts": 7, "mean": mean, "low": [m - 1 for m in mean], "high": [m + 1 for m in mean]}
               for role, mean in means.items()}  # fmt: skip
    return {"model": "tiny", "edits": "facts", "known": 7, "asked": 9, "blocks": 4, "window": 2, "samples": 3,
            "noise": 3.0, "clean": 0.61, "corrupted": 0.08, "averages": {"hidden": by_role, "mlp": by_role},
            "proposed": {"rome.layer": 2, "memit.layers": [1, 2]}}  # fmt: skip


def test_maps_and_lines_hold_the_means_and_their_bands(traced):
    figure = trace_figure(traced)
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["hidden state after one block put back",
                                                     "MLP outputs over 2 blocks put back"]  # fmt: skip
    expected = [values["mean"] for values in traced["averages"]["mlp"].values()]
    for axis in panels:
        np.testing.assert_array_equal(axis.images[0].get_array(), expected)
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list(ROLES)
    lines = [axis for axis in figure.axes if axis.get_xlabel()]
    assert [line.get_label() for line in lines[1].lines[:3]] == list(ROLES)
    for line, band, mean in zip(lines[1].lines[:3], lines[1].collections, expected, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), mean)
        (path,) = band.get_paths()
        assert path.vertices[:, 1].min() == min(mean) - 1 and path.vertices[:, 1].max() == max(mean) + 1
    assert any(line.get_label() == "proposed rome.layer" and line.get_xdata()[0] == 2 for line in lines[1].lines)
    plt.close(figure)


def test_a_picture_says_what_was_measured(traced, tmp_path):
    figure = trace_figure(traced)
    assert "7 facts of edits=facts that it knows, of 9" in figure.get_supxlabel()
    plt.close(figure)
    draw_trace(traced, tmp_path / "trace.png")
    assert (tmp_path / "trace.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("weights, called", [("Q4_K, dequantised", "tiny (Q4_K, dequantised)"), (None, "tiny")])
def test_the_caption_says_what_the_weights_were_before_they_were_dequantised(traced, weights, called):
    figure = trace_figure(traced | {"weights": weights})
    assert figure.get_supxlabel().startswith(f"{called}: 7 facts of edits=facts that it knows, of 9.")
    plt.close(figure)
