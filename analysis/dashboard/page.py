"""The dashboard itself, a saved view of W&B's workspace, and the report that says how to read it."""

from __future__ import annotations

import re
from typing import Any

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from afteredit.analysis.dashboard import panels
from afteredit.analysis.dashboard.contents import Contents

TITLE = "What edits left of the model"
CURVES, SUMMARY = "What is left of the model", "What runs come down to"
SAID, LAYERS = "What the model said", "Drift, layer by layer"
READING = [
    "Every curve has the number of edits on its x-axis. A line is the mean over the runs that differ in nothing but "
    "their seed, and the band reaches from the lowest of them to the highest.",
    "Abilities retained is the mean, over all abilities that the unedited model has, of (score − chance) / (unedited "
    "score − chance): 1 is the unedited model, 0 is guessing. Where this curve falls, the model is being ruined.",
    "Each ability stands beside its chance line. A curve that lies on that line says nothing any more; one that began "
    "there never did, and is not part of the mean.",
    "Perplexity is drawn on a logarithmic axis. A curve that turns upwards is often the first sign of a collapse.",
    "Facts written is asked right after each edit, and again at later checkpoints. Where the second curve lies below "
    "the first, later edits have destroyed earlier ones.",
    "Neighbouring facts are about other subjects and should stay as they were: 1 is no damage.",
    "Area is the mean height of the curve of what is retained. A run in which no tenth, or no half, is lost has no "
    "number of edits for it: it is counted as censored, at its last checkpoint.",
]


def workspace(c: Contents) -> ws.Workspace:
    """Returns the dashboard: the curves that matter, the summary, what the model said, and the rest folded away."""
    first, layers = panels.curves(c), panels.layers(c)
    sections = [
        _section(CURVES, first, columns=3, is_open=True),
        _section(SUMMARY, panels.summaries(c), columns=2, is_open=True),
        *(_section(SAID, [wr.WeavePanelSummaryTable(table_name=name)], columns=1, is_open=True)
          for name in c.tables & {"answers"}),
        *(_section(heading, found) for heading, found in
          {LAYERS: layers, **panels.others(c, [*first, *layers])}.items() if found),
    ]  # fmt: skip
    columns = c.logged(["ability/retained", "drift/perplexity", "summary/collapse"])
    return ws.Workspace(
        entity=c.entity, project=c.project, name=_title(c), sections=sections,
        settings=ws.WorkspaceSettings(x_axis="n_edits", group_by_prefix="first", max_runs=100),
        runset_settings=ws.RunsetSettings(groupby=[expr.Config(key) for key in c.curve_keys], filters=_filters(c),
                                          pinned_columns=[f"summary:{key}" for key in columns]),
    )  # fmt: skip


class NamedReport(wr.Report):
    """A report whose view has a fixed name; the library would make a new random one at each saving."""

    def _to_model(self) -> Any:
        model = super()._to_model()
        model.name = view_name(self.title)
        return model


def view_name(title: str) -> str:
    """Returns the name of a view of ours.  Of other views it is random, and nwuser… of a person's own workspace."""
    return "afteredit" + re.sub(r"\W", "", title).lower()


def report(c: Contents) -> NamedReport:
    """Returns a page with the same curves, which says how they are read."""
    return NamedReport(
        entity=c.entity, project=c.project, title=_title(c), width="fluid",
        description="What a language model has left after its facts were edited, and how to read the curves.",
        blocks=[
            wr.TableOfContents(), wr.H2("How to read the curves"), wr.UnorderedList(list(READING)),
            *(block for heading, shown in ((CURVES, panels.curves(c)), (SUMMARY, panels.summaries(c)),
                                           (LAYERS, panels.layers(c))) if shown
              for block in (wr.H2(heading), _grid(c, shown))),
        ],
    )  # fmt: skip


def _section(heading: str, shown: list[Any], *, columns: int = 3, is_open: bool = False) -> ws.Section:
    """Returns a section that shows all of its panels at once, over the number of edits."""
    layout = ws.SectionLayoutSettings(columns=columns, rows=-(-len(shown) // columns))
    settings = ws.SectionPanelSettings(x_axis="n_edits")
    return ws.Section(heading, shown, is_open=is_open, layout_settings=layout, panel_settings=settings)


def _grid(c: Contents, shown: list[Any]) -> wr.PanelGrid:
    """Returns the panels, two in a line of 24 columns."""
    for index, panel in enumerate(shown):
        panel.layout = wr.Layout(x=12 * (index % 2), y=8 * (index // 2), w=12, h=8)
    runs = wr.Runset(entity=c.entity, project=c.project, name="runs", filters=_filters(c),
                     groupby=[f"config.{key}" for key in c.curve_keys])  # fmt: skip
    return wr.PanelGrid(runsets=[runs], panels=shown)


def _filters(c: Contents) -> list[Any]:
    return [expr.Metric("Sweep") == c.sweep] if c.sweep else []


def _title(c: Contents) -> str:
    return f"{TITLE}, sweep {c.sweep}" if c.sweep else TITLE
