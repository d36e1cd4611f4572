"""An export is sent to the hub by huggingface_hub; a stand-in on this machine is the hub."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from afteredit.commands.export.push import push, refuse_no_hub
from afteredit.store.errors import BadInput


class Hub(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.created, self.files, self.tokens, self.takes = [], {}, set(), True


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self):
        said = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        if not self.server.takes:
            self.answer({"error": "no right"}, 403)
        elif self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(said)["files"]]
            self.answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/main" in self.path:
            lines = [json.loads(line)["value"] for line in said.splitlines() if b'"file"' in line]
            self.server.files |= {line["path"]: base64.b64decode(line["content"]) for line in lines}
            self.answer({"commitUrl": "https://huggingface.co/me/edited/commit/1", "commitOid": "1", "success": True})
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(said))
            self.answer({"url": "https://huggingface.co/me/edited"})
        else:
            self.answer({})

    def do_GET(self):
        self.answer({"id": "me/edited", "sha": "0", "siblings": []})

    def answer(self, value: dict, code: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text("---\nlibrary_name: peft\n---\n# Edited\n")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_every_file_of_the_folder_goes_into_a_private_repository(hub, folder):
    assert push(folder, "me/edited") == "https://huggingface.co/me/edited/commit/1"
    (created,) = hub.created
    assert (created["organization"], created["name"], created["visibility"]) == ("me", "edited", "private")
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.tokens == {"Bearer hf_mine"}


def test_a_hub_that_does_not_take_it_is_named_and_the_folder_stays(hub, folder):
    hub.takes = False
    with pytest.raises(BadInput, match=r"is written, but me/edited did not take it \(.*hf upload me/edited"):
        push(folder, "me/edited")
    assert len(list(folder.iterdir())) == 2 and not hub.files


@pytest.mark.parametrize("name", ["edited", "a/b/c", "me/ed ited"])
def test_what_is_no_hub_id_is_refused(monkeypatch, name):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    with pytest.raises(BadInput, match=f"replay.push={name} is no hub id"):
        refuse_no_hub(name)


def test_without_a_token_it_is_refused_before_anything_is_made(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(BadInput, match="no token of the hub is known; log in by `hf auth login`, or set HF_TOKEN"):
        refuse_no_hub("me/edited")
