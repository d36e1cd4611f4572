"""What `wandb.Api` asks of a server: runs by project or sweep, their history, the artifacts they logged, the files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from server import State

WHEN = "2026-01-01T00:00:00Z"
ONE_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
HEAVY = ("config", "summaryMetrics")  # a lazy list of runs leaves them out; they are asked for run by run


class Reading:
    """Answers from `state`; an answer is what GraphQL has under `data`."""

    def __init__(self, state: State):
        self.state = state
        self.answers: dict[str, Callable[[dict], dict]] = {
            "GetSweep": self.sweep, "Runs": self.runs, "Run": self.one_run, "RunHistoryKeys": self.last_step,
            "RunParquetHistory": self.exports, "HistoryPage": self.history, "RunOutputArtifacts": self.artifacts,
            "ArtifactByID": self.artifact,
            "FetchArtifactManifest": self.manifest, "GetArtifactMembershipFileUrls": self.files,
        }  # fmt: skip

    def sweep(self, given: dict) -> dict:
        sweep = self.state.sweeps.get(given["name"])
        if sweep is None or not self._is_own(sweep, given):
            return {"project": {"sweep": None}}
        return {"project": {"sweep": {
            "__typename": "Sweep", "id": given["name"], "name": given["name"], "displayName": None,
            "method": sweep["config"]["method"], "state": "RUNNING", "description": None, "bestLoss": None,
            "config": yaml.safe_dump(sweep["config"]), "createdAt": WHEN, "updatedAt": WHEN,
            "runCount": len(sweep["runs"]), "runCountExpected": None}}}  # fmt: skip

    def runs(self, given: dict) -> dict:
        filters = json.loads(given.get("filters") or "{}")
        wanted = filters if "sweep" in filters else filters.get("$and", [{}])[0]
        own = {name: run for name, run in self.state.runs.items() if run.get("project") and self._is_own(run, given)}
        if not own:
            return {"project": None}
        nodes = [
            self._node(name) for name, run in own.items() if run.get("sweep") == wanted.get("sweep", run.get("sweep"))
        ]
        if "LightweightRunFragment" in given["query"]:
            nodes = [{key: value for key, value in node.items() if key not in HEAVY} for node in nodes]
        return {"project": {"internalId": "1", "readOnly": False, "runCount": len(nodes), "runs": page(nodes)}}

    def one_run(self, given: dict) -> dict:
        return {"project": {"run": self._node(given["name"])}}

    def last_step(self, given: dict) -> dict:
        return {"project": {"run": {"historyKeys": {"lastStep": max(self._history(given["name"]), default=-1)}}}}

    def exports(self, given: dict) -> dict:
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}}

    def history(self, given: dict) -> dict:
        lines = [json.dumps({"_step": step, **row}) for step, row in sorted(self._history(given["run"]).items())
                 if given["minStep"] <= step < given["maxStep"]]  # fmt: skip
        return {"project": {"run": {"history": lines}}}

    def artifacts(self, given: dict) -> dict:
        nodes = [self._artifact(name, given) for name, one in self.state.artifacts.items()
                 if one["run"] == given["run"] and one["committed"]]  # fmt: skip
        return {"project": {"run": {"artifacts": page(nodes)}}}

    def artifact(self, given: dict) -> dict:
        return {"artifact": self._artifact(given["id"], {"entity": "default", "project": "afteredit"})}

    def manifest(self, given: dict) -> dict:
        file = {"directUrl": self._url(given["id"], "manifest.json")}
        return {"artifact": {"currentManifest": {"file": file}}}

    def files(self, given: dict) -> dict:
        same = [name for name, one in self.state.artifacts.items() if one["name"] == given["collection"]]
        name = same[int(given["alias"].removeprefix("v"))]
        nodes = [{"__typename": "File", "name": file, "directUrl": self._url(name, file)}
                 for file in self.state.artifacts[name]["files"]]  # fmt: skip
        collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": page(nodes)}}
        return {"project": {"artifactCollection": collection}}

    def _is_own(self, of: dict, given: dict) -> bool:
        return (of["entity"], of["project"]) == (given["entity"], given["project"])

    def _url(self, artifact: str, file: str) -> str:
        return f"{self.state.url}/artifacts/{artifact}/{file}"

    def _node(self, name: str) -> dict[str, Any]:
        run = self.state.runs[name]
        return {"id": name, "projectId": "1", "name": name, "displayName": run.get("displayName"),
                "tags": run.get("tags", []), "sweepName": run.get("sweep"), "state": run["state"],
                "group": run.get("groupName"), "jobType": None, "commit": run.get("commit"), "readOnly": False,
                "createdAt": WHEN, "heartbeatAt": WHEN, "description": None, "notes": None, "systemMetrics": "{}",
                "historyLineCount": run["lines"], "user": {"name": "admin", "username": "admin"}, "historyKeys": None,
                "config": json.dumps(run["config"]), "summaryMetrics": json.dumps(run["summary"])}  # fmt: skip

    def _history(self, run_id: str) -> dict[int, dict[str, float]]:
        """By step."""
        rows: dict[int, dict[str, float]] = {}
        with sqlite3.connect(self.state.folder / "openwandb.db") as database:
            stored = database.execute("SELECT key, step, value FROM metrics WHERE run_id = ?", (run_id,)).fetchall()
        for key, step, value in stored:
            rows.setdefault(step, {})[key] = value
        return rows

    def _artifact(self, name: str, given: dict) -> dict[str, Any]:
        one = self.state.artifacts[name]
        same = [other for other, found in self.state.artifacts.items() if found["name"] == one["name"]]
        entity = {"name": given["entity"]}
        project = {"id": "1", "internalId": "1", "name": given["project"], "entity": entity}
        return {"__typename": "Artifact", "id": name, "versionIndex": same.index(name), "state": "COMMITTED",
                "artifactSequence": {"__typename": "ArtifactSequence", "name": one["name"], "project": project},
                "artifactType": {"name": one["type"]}, "description": None, "metadata": None, "tags": [],
                "ttlDurationSeconds": -1, "ttlIsInherited": True, "historyStep": None, "size": 0, "digest": "",
                "commitHash": None, "fileCount": len(one["files"]), "createdAt": WHEN, "updatedAt": WHEN,
                "aliases": []}  # fmt: skip


def page(nodes: Sequence[dict]) -> dict:
    edges = [{"node": node, "cursor": str(number)} for number, node in enumerate(nodes)]
    return {"totalCount": len(nodes), "pageInfo": ONE_PAGE, "edges": edges}
