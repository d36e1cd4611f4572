"""A W&B server on loopback for the tests: openwandb's, and what it lacks of the real one.

    python server.py PORT FOLDER [SECONDS]

Added: a run that is resumed by its id gets to know where it stands, one that is begun again under its id replaces what
was there, and a line of history that is sent twice is kept once (lines go by their number); sweeps (grids) with agents,
where a run that was stopped, or of which nobody has heard for SECONDS, is handed out again, with its *whole* config
for arguments as the real server does (wandb/wandb#9143); artifacts and their files; what `wandb.Api` reads
(reading.py); saved views (views.py).  All of it is in FOLDER/state.json after each request, so a server that was killed
goes on where it was.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import re
import sqlite3
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from reading import Reading
from views import Views

OPERATION = re.compile(r"(?:\s|#.*)*(?:query|mutation)\s+(\w+)")
ARTIFACT_FILE = re.compile(r"/artifacts/(\d+/.+)")
FILE_STREAM = re.compile(r"/files/[^/]+/[^/]+/([^/]+)/file_stream")
HISTORY, SUMMARY = "wandb-history.jsonl", "wandb-summary.json"
KEPT = ("runs", "sweeps", "agents", "artifacts", "views")


class State:
    """What openwandb does not keep, by id: `runs`, `sweeps`, `agents` (the sweep of each), `artifacts`, `views`."""

    def __init__(self, folder: Path, url: str, lost_after: float):
        self.folder, self.url, self.lost_after = folder, url, lost_after
        self.path = folder / "state.json"
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.runs, self.sweeps, self.agents, self.artifacts, self.views = (kept.get(name, {}) for name in KEPT)
        self.answers: dict[str, Callable[[dict], dict | None]] = {
            "UpsertBucket": self.run_upserted, "RunResumeStatus": self.resume_status,
            "UpsertSweep": self.new_sweep, "SweepWithRuns": self.the_sweep, "CreateAgent": self.new_agent,
            "Heartbeat": self.heartbeat, "NotifyScriptableRunAlert": self.alerted, "UseArtifact": self.used,
            "RunStoppedStatus": self.stop_status, "CreateArtifact": self.new_artifact,
            "CreateArtifactFiles": self.artifact_files, "CreateArtifactManifest": self.manifest,
            "UpdateArtifactManifest": self.manifest, "CommitArtifact": self.committed, **Reading(self).answers,
            **Views(self).answers,
        }  # fmt: skip

    def save(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({name: getattr(self, name) for name in KEPT}, indent=1))
        part.replace(self.path)

    # Runs.  openwandb is told of them too.

    def run(self, run_id: str) -> dict[str, Any]:
        new = {
            "config": {},
            "lines": 0,
            "last": None,
            "summary": {},
            "state": "pending",
            "seen": time.time(),
            "begun": 0,
        }
        return self.runs.setdefault(run_id, new)

    def run_upserted(self, given: dict) -> None:
        """A start names the program; what comes later from the same process (more config) does not.  A start that has
        not asked where the run stands begins it anew."""
        run = self.run(given["name"])
        if given.get("program"):
            run["begun"] += 1
            if not given.get("id"):
                run |= {"lines": 0, "last": None, "summary": {}}
                with sqlite3.connect(self.folder / "openwandb.db") as database:
                    database.execute("DELETE FROM metrics WHERE run_id = ?", (given["name"],))
        run |= {"state": "running", "seen": time.time()}
        run["config"] |= json.loads(given.get("config") or "{}")
        run |= {"entity": given.get("entity") or "default"}
        run |= {
            key: given[key]
            for key in ("project", "groupName", "tags", "commit", "sweep", "displayName")
            if given.get(key)
        }

    def resume_status(self, given: dict) -> dict:
        run, bucket = self.runs.get(given["name"]), None
        if run and run["state"] != "pending":
            telemetry = run["config"].get("_wandb", {}).get("value", {}).get("t", {})
            bucket = {"id": given["name"], "name": given["name"], "displayName": run.get("displayName"), "notes": "",
                      "summaryMetrics": json.dumps(run["summary"]), "logLineCount": 0, "eventsLineCount": 0,
                      "historyLineCount": run["lines"], "historyTail": json.dumps([run["last"]] if run["last"] else []),
                      "eventsTail": "[]", "config": json.dumps(run["config"]), "tags": run.get("tags", []),
                      "wandbConfig": json.dumps({"t": telemetry})}  # fmt: skip
        entity = {"id": "default", "name": given.get("entity") or "default"}
        return {"model": {"id": "1", "name": given["project"], "entity": entity, "bucket": bucket}}

    def streamed(self, run_id: str, sent: dict) -> dict:
        """What is new of one piece of a run's stream."""
        run, files = self.run(run_id), sent.get("files") or {}
        run["seen"] = time.time()
        if HISTORY in files:
            chunk = files[HISTORY]
            chunk["content"] = chunk["content"][max(0, run["lines"] - chunk["offset"]) :]
            run["lines"] += len(chunk["content"])
            run["last"] = chunk["content"][-1] if chunk["content"] else run["last"]
        if SUMMARY in files:
            run["summary"] = json.loads(files[SUMMARY]["content"][-1])
        run["preempting"] = run.get("preempting", False) or bool(sent.get("preempting"))
        if sent.get("complete"):
            failed = sent.get("exitcode") != 0
            run["state"] = "preempted" if failed and run["preempting"] else "failed" if failed else "finished"
            run["preempting"] = False
        return sent

    def alerted(self, given: dict) -> dict:
        alert = {key: given[key] for key in ("title", "text", "severity")}
        self.run(given["runName"]).setdefault("alerts", []).append(alert)
        return {"notifyScriptableRunAlert": {"success": True}}

    def used(self, given: dict) -> dict:
        artifact = given["input"]["artifactID"]
        self.run(given["input"]["runName"]).setdefault("used", []).append(artifact)
        return {"useArtifact": {"artifact": {"id": artifact}}}

    def stop_status(self, given: dict) -> dict:
        return {"project": {"run": {"stopped": self.run(given["runId"]).get("stopped", False)}}}

    # Sweeps.

    def new_sweep(self, given: dict) -> dict:
        config, name = yaml.safe_load(given["config"]), uuid.uuid4().hex[:8]
        owner = {
            "entity": given.get("entityName") or "default",
            "project": given.get("projectName") or config["project"],
        }
        self.sweeps[name] = owner | {"config": config, "queue": list(grid(config["parameters"])), "runs": []}
        entity = {"id": "default", "name": owner["entity"]}
        project = {"id": "1", "name": owner["project"], "entity": entity}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def the_sweep(self, given: dict) -> dict:
        sweep = self.sweeps.get(given["sweep"])
        if sweep is None:
            return {"project": {"sweep": None}}
        unknown = ("description", "createdAt", "heartbeatAt", "updatedAt", "bestLoss", "controller", "scheduler")
        return {"project": {"sweep": dict.fromkeys(unknown) | {
            "id": given["sweep"], "name": given["sweep"], "method": sweep["config"]["method"], "state": "RUNNING",
            "config": yaml.safe_dump(sweep["config"]), "earlyStopJobRunning": False, "runs": {"edges": []},
        }}}  # fmt: skip

    def new_agent(self, given: dict) -> dict:
        name = uuid.uuid4().hex[:8]
        self.agents[name] = given["sweep"]
        return {"createAgent": {"agent": {"id": name}}}

    def heartbeat(self, given: dict) -> dict:
        """An agent is told to stop a poor run.  One that runs nothing gets what is lost, else what is next, else waits
        for the others, else ends."""
        sweep, at_work = self.sweeps[self.agents[given["id"]]], json.loads(given.get("runState") or "{}")
        for run_id in at_work:
            self.run(run_id)["seen"] = time.time()
        runs = {run_id: self.run(run_id) for run_id in sweep["runs"]}
        open_ones = {run_id: run for run_id, run in runs.items() if run["state"] in ("pending", "running", "preempted")}
        lost = [run_id for run_id, run in open_ones.items()
                if run["state"] == "preempted" or time.time() - run["seen"] > self.lost_after]  # fmt: skip
        commands = [{"type": "stop", "run_id": run_id} for run_id in at_work if self._is_poor(run_id, sweep["config"])]
        for command in commands:
            self.run(command["run_id"])["stopped"] = True
        if not at_work and lost:
            commands = [self._command("resume", lost[0], sweep)]
        elif not at_work and sweep["queue"]:
            run_id = uuid.uuid4().hex[:8]
            sweep["runs"].append(run_id)
            self.run(run_id)["config"] = {key: {"value": value} for key, value in sweep["queue"].pop(0).items()}
            commands = [self._command("run", run_id, sweep)]
        elif not at_work and not open_ones:
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

    def _is_poor(self, run_id: str, config: dict) -> bool:
        """Where a sweep stops runs early, every run is found poor once it has sent its metric often enough."""
        with sqlite3.connect(self.folder / "openwandb.db") as database:
            query = "SELECT COUNT(*) FROM metrics WHERE run_id = ? AND key = ?"
            ((sent,),) = database.execute(query, (run_id, config["metric"]["name"])).fetchall()
        return sent >= config.get("early_terminate", {"min_iter": math.inf})["min_iter"]

    def _command(self, kind: str, run_id: str, sweep: dict) -> dict:
        run = self.run(run_id)
        run |= {"state": "pending", "seen": time.time()}
        return {"type": kind, "run_id": run_id, "args": run["config"], "program": sweep["config"]["program"]}

    # Artifacts: their files lie in openwandb's folder `artifacts`, under the artifact's id.

    def new_artifact(self, given: dict) -> dict:
        asked, name = given["input"], str(len(self.artifacts) + 1)
        self.artifacts[name] = {"name": asked["artifactCollectionName"], "type": asked["artifactTypeName"],
                                "run": asked["runName"], "files": [], "committed": False}  # fmt: skip
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def artifact_files(self, given: dict) -> dict:
        nodes = []
        for file in given["input"]["artifactFiles"]:
            self.artifacts[file["artifactID"]]["files"].append(file["name"])
            nodes.append({"node": {
                "storagePath": None, "uploadUrl": f"{self.url}/artifacts/{file['artifactID']}/{file['name']}",
                "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}})  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def manifest(self, given: dict) -> dict:
        name = given.get("artifactID") or given["artifactManifestID"]
        file = {"id": name, "uploadUrl": f"{self.url}/artifacts/{name}/manifest.json", "uploadHeaders": []}
        operation = "createArtifactManifest" if "artifactID" in given else "updateArtifactManifest"
        return {operation: {"artifactManifest": {"id": name, "file": file}}}

    def committed(self, given: dict) -> dict:
        self.artifacts[given["artifactID"]]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}


def grid(parameters: dict) -> Iterator[dict[str, Any]]:
    """Every combination; the last parameter varies fastest."""
    names = list(parameters)
    for values in itertools.product(*(_choices(parameters[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def _choices(parameter: dict) -> list:
    if "parameters" in parameter:  # nested: one value is a whole mapping
        return list(grid(parameter["parameters"]))
    return parameter["values"] if "values" in parameter else [parameter["value"]]


class App:
    """In front of openwandb: answers what `state` can, and hands on the rest."""

    def __init__(self, state: State, openwandb: Callable[..., Awaitable[None]]):
        self.state, self.openwandb = state, openwandb

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.openwandb(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answer = None
        if scope["path"] == "/graphql":
            asked = json.loads(body)
            operation = OPERATION.match(asked["query"])
            known = self.state.answers.get(operation[1]) if operation else None
            answer = known({**(asked.get("variables") or {}), "query": asked["query"]}) if known else None
            if asked.get("operationName") == "":  # as wandb.Api sends it: there is one operation
                body = json.dumps({key: value for key, value in asked.items() if key != "operationName"}).encode()
        elif stream := FILE_STREAM.fullmatch(scope["path"]):
            body = json.dumps(self.state.streamed(stream[1], json.loads(body))).encode()
        self.state.save()
        if answer is not None:
            await _send(send, b"application/json", json.dumps({"data": answer}).encode())
            return
        if scope["method"] == "GET" and (file := ARTIFACT_FILE.fullmatch(scope["path"])):
            await _send(send, b"application/octet-stream", (self.state.folder / "artifacts" / file[1]).read_bytes())
            return
        whole = [{"type": "http.request", "body": body, "more_body": False}]
        length = [(b"content-length", str(len(body)).encode())]
        headers = [header for header in scope["headers"] if header[0] != b"content-length"] + length

        async def again() -> dict:
            return whole.pop() if whole else await receive()

        await self.openwandb({**scope, "headers": headers}, again, send)


async def _send(send: Callable, kind: bytes, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


def main(port: int, folder: Path, lost_after: float) -> None:
    os.environ |= {"OPENWANDB_DATA_DIR": str(folder), "OPENWANDB_HOST": "127.0.0.1", "OPENWANDB_PORT": str(port)}
    import uvicorn
    from openwandb import database
    from openwandb.server import app

    verify = functools.cache(database.verify_api_key)  # by a hash that is slow on purpose, at each request
    database.verify_api_key = lambda key: dict(verify(key))
    state = State(folder, f"http://127.0.0.1:{port}", lost_after)
    uvicorn.run(App(state, app), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 300.0)
