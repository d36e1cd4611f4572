"""What saved views ask of a server: a view with an id is changed, one without is new, whatever its name."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

from reading import WHEN, page

if TYPE_CHECKING:
    from server import State


class Views:
    """Answers from `state.views`; an answer is what GraphQL has under `data`."""

    def __init__(self, state: State):
        self.state = state
        self.answers: dict[str, Callable[[dict], dict]] = {
            "UpsertView2": self.upsert, "upsertView": self.upsert, "View": self.found, "ProjectViews": self.found,
            "ProjectInternalId": self.project_id, "GetProjects": self.projects,
        }  # fmt: skip

    def upsert(self, given: dict) -> dict:
        new = not given.get("id")
        name = base64.b64encode(f"View:{len(self.state.views) + 1}".encode()).decode() if new else given["id"]
        kept = ("entityName", "projectName", "name", "displayName", "description", "type", "spec")
        self.state.views.setdefault(name, {})
        self.state.views[name] |= {key: given[key] for key in kept if key in given}
        view = self.state.views[name]
        project = {"id": "1", "name": view["projectName"], "entityName": view["entityName"]}
        return {"upsertView": {"inserted": new, "view": {"id": name, **view, "project": project, "updatedAt": WHEN}}}

    def found(self, given: dict) -> dict:
        owner = given.get("entityName") or given["entity"], given.get("project") or given["name"]
        if not any((run.get("entity"), run.get("project")) == owner for run in self.state.runs.values()):
            return {"project": None}
        wanted = (*owner, given.get("viewType", "runs"), given["viewName"])
        nodes = [{"id": name, "createdAt": WHEN, "updatedAt": WHEN, "user": None, **view}
                 for name, view in self.state.views.items()
                 if tuple(view[key] for key in ("entityName", "projectName", "type", "name")) == wanted]  # fmt: skip
        return {"project": {"allViews": page(nodes)}}

    def projects(self, given: dict) -> dict:
        names = {run["project"] for run in self.state.runs.values() if run.get("entity") == given["entity"]}
        nodes = [{"__typename": "Project", "id": "1", "name": name, "entityName": given["entity"], "createdAt": WHEN,
                  "isBenchmark": False, "user": None} for name in sorted(names)]  # fmt: skip
        return {"models": page(nodes)}

    def project_id(self, given: dict) -> dict:
        return {"project": {"id": "1", "internalId": "1"}}
