"""Saves the dashboard and its report under fixed names of ours: saving again changes these two and nothing else."""

from __future__ import annotations

from typing import Any

from wandb_workspaces.reports.v2 import Report
from wandb_workspaces.workspaces import Workspace
from wandb_workspaces.workspaces.internal import get_view_dict

from afteredit.analysis.dashboard import page
from afteredit.analysis.dashboard.contents import Contents, contents
from afteredit.analysis.read.wandb_runs import new_api, owner_and_project, readable
from afteredit.store.errors import BadInput


def save_dashboard(path: str, sweep: str | None) -> tuple[str, str]:
    """Saves the workspace and the report of ENTITY/PROJECT, or of one of its sweeps; returns their addresses.

    Raises BadInput where the project cannot be read or written, or where no run of it has logged anything yet.
    """
    entity, project = owner_and_project(path)
    source = f"--wandb {path}" + (f" --sweep {sweep}" if sweep else "")
    with readable(source):
        api = new_api()
        c = contents(entity, project, sweep, api.runs(path, {"sweep": sweep} if sweep else None, lazy=False))
        if not c.metrics:
            raise BadInput(f"{source} has no run that logged a number; a dashboard shows what runs have logged")
        return str(_saved_workspace(c).url), str(_saved_report(c, api).url)


def _saved_workspace(c: Contents) -> Workspace:
    workspace = page.workspace(c)
    name = page.view_name(workspace.name)
    workspace._internal_name = f"nw-{name}-v"  # the library has no other way to fix a view's name
    try:
        workspace._internal_id = get_view_dict(c.entity, c.project, name)["id"]
    except ValueError as problem:
        if "not found in project" not in str(problem):  # else it is new
            raise
    return workspace.save()


def _saved_report(c: Contents, api: Any) -> Report:
    report = page.report(c)
    for saved in api.reports(f"{c.entity}/{c.project}", page.view_name(report.title)):
        report.id = saved.id
    return report.save()
