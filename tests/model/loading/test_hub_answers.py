"""What the hub answers where it gives no model is said with its remedy; a stand-in on loopback answers."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from afteredit.model.loading.hub import snapshot
from afteredit.store.errors import BadInput

ANSWERS = {
    "gated": (403, "GatedRepo", ["only to those whom its authors let in", "access at", "/lab/gated", "HF_TOKEN"]),
    "lost": (404, "RepoNotFound", ["knows no model 'lab/lost'", "private", "HF_TOKEN"]),
    "old": (404, "RevisionNotFound", ["knows no 'lab/old', revision v9", "model.revision"]),
    "stranger": (401, "", ["'lab/stranger'", "401", "HF_TOKEN"]),
    "down": (400, "", ["'lab/down'", "400", "try again later"]),
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch, tmp_path):
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            status, code, _ = ANSWERS[self.path.split("/lab/")[1].split("/")[0]]
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "as the hub says it")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield
    server.shutdown()


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_hub_answers_is_told_with_the_remedy(name, hub):
    with pytest.raises(BadInput) as problem:
        snapshot(f"lab/{name}", "v9" if name == "old" else None)
    for words in ANSWERS[name][2]:
        assert words in str(problem.value)
