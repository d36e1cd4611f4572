"""The panels of a dashboard, most telling first; each names only numbers that some run holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from afteredit.analysis.dashboard.contents import CHANCE, Contents
from afteredit.analysis.numbers.run_summary import LOSSES

RETAINED, PERPLEXITY = "ability/retained", "drift/perplexity"
SPREAD: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}  # over the runs of a group
LOST = "summary/retained/edits_until_{}_percent_lost".format
COMPARED = {"summary/retained/area": "retained on average (area)", "summary/retained/left": "retained at the end",
            **{LOST(n): f"edits until {n} % lost" for n in LOSSES},
            "summary/collapse": "edits until collapse"}  # fmt: skip
PREFIXES = {"ability": "Abilities in detail", "editing": "Editing success in detail", "edit": "Each edit",
            "drift": "Drift in detail", "time": "Time", "memory": "Memory"}  # fmt: skip


def curves(c: Contents) -> list[wr.LinePlot]:
    """Returns what is looked at first: what is retained, perplexity, the facts, their neighbours, each ability."""
    success = "editing/{}/{}/{}".format
    when = ("immediate", "retained")
    return _some(
        line(c, "Abilities retained (1: all that the unedited model can do, 0: chance)", [RETAINED]),
        line(c, "Perplexity of held-out text", [PERPLEXITY], log_y=True),
        line(c, "Facts written: right after their edit, and retained", [success(w, "prob", "efficacy") for w in when]),
        line(c, "Facts said in free text: right after their edit, and retained",
             [success(w, "generated", "efficacy") for w in when]),
        line(c, "Neighbouring facts left as they were", [success(w, "prob", "neighbourhood") for w in when]),
        *(line(c, f"{c.titles.get(name, name)}: score, and chance", [f"ability/{name}", f"{CHANCE}/{name}"])
          for name in c.abilities),
    )  # fmt: skip


def summaries(c: Contents) -> list[Any]:
    """Returns bars of what runs come down to, and every run as a line through its settings and these numbers."""
    plots = _some(
        bars(c, "Retained, mean over all edits (area under its curve)", ["summary/retained/area"]),
        *(bars(c, f"Edits until {n} % of the abilities are lost (censored: not lost by then)",
               [LOST(n), f"{LOST(n)}_censored_at"]) for n in LOSSES),
        bars(c, "Edits until collapse", ["summary/collapse"]),
    )  # fmt: skip
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key.removeprefix("resolved."))
               for key in [*c.curve_keys, "seed"]]  # fmt: skip
    columns += [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(key), display_name=COMPARED[key])
                for key in c.logged(COMPARED)]  # fmt: skip
    return [*plots, wr.ParallelCoordinatesPlot(title="Settings, and what they left", columns=columns)]


def layers(c: Contents) -> list[wr.LinePlot]:
    """Returns how far each edited layer's matrix has moved."""
    what = {"relative_norm": "‖W − W₀‖ / ‖W₀‖", "spectral_norm": "σ_max of W"}
    return _some(*(line(c, f"Layer {layer}: {text}", [f"drift/{layer}/{key}"])
                   for key, text in what.items() for layer in c.layers))  # fmt: skip


def others(c: Contents, shown: Sequence[wr.LinePlot]) -> dict[str, list[wr.LinePlot]]:
    """Returns a panel for each number that is not `shown`, by the heading of its prefix."""
    rest = sorted(c.metrics - {key for panel in shown for key in panel.y} - {"n_edits"})
    headings = dict.fromkeys([*PREFIXES, *(key.split("/")[0] for key in rest)])
    panels = {PREFIXES.get(prefix, prefix): [line(c, key, [key]) for key in rest if key.split("/")[0] == prefix]
              for prefix in headings}  # fmt: skip
    return {heading: found for heading, found in panels.items() if found}


def line(c: Contents, title: str, keys: Sequence[str], **more: Any) -> wr.LinePlot:
    """Returns curves over the number of edits: the mean of each group of runs, in a band from the least to the most."""
    return wr.LinePlot(title=title, x="n_edits", y=c.logged(keys), title_x="edits", **SPREAD, **more)


def bars(c: Contents, title: str, keys: Sequence[str]) -> wr.BarPlot:
    """Returns a bar for each group of runs: their mean, with the least and the most."""
    return wr.BarPlot(title=title, metrics=c.logged(keys), **SPREAD)


def _some(*panels: Any) -> list[Any]:
    """Returns those panels that have something to show."""
    return [panel for panel in panels if (panel.metrics if isinstance(panel, wr.BarPlot) else panel.y)]
