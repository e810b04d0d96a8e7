"""A hub model becomes a folder, fetched by the real client from a server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from tasks.workspace.hub import HubError, fetch_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = "89abcdef0123456789abcdef0123456789abcdef"
FETCH = "import sys; from tasks.workspace.hub import fetch_model; [fetch_model(each) for each in sys.argv[1:]]"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a snapshot of a public model needs.

    Its main branch is at `COMMIT` when it is looked up, and at `NEWER` right after, as when somebody pushes meanwhile.
    """

    def __init__(self, *arguments: object, revisions: dict[str, Path]) -> None:
        self.revisions = revisions
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/api/models/team/tiny":
            self.answer_info(COMMIT)
            return
        asked = re.fullmatch(r"(?:/api/models)?/team/tiny/(tree|revision|resolve)/(\w+)/?([\w.-]*)", path)
        revision = NEWER if asked and asked[2] == "main" else asked[2] if asked else ""
        model = self.revisions.get(revision)
        if asked is None or model is None:
            self.refuse("RepoNotFound" if asked is None else "RevisionNotFound")
        elif asked[1] == "revision":
            self.answer_info(revision)
        elif asked[1] == "tree":
            entries = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": revision}
                for file in sorted(model.iterdir())
            ]
            self.answer(json.dumps(entries).encode(), "application/json", revision)
        elif (model / asked[3]).is_file():
            self.answer((model / asked[3]).read_bytes(), "application/octet-stream", revision)
        else:
            self.refuse("EntryNotFound")

    def answer_info(self, revision: str) -> None:
        files = [{"rfilename": file.name} for file in sorted(self.revisions[revision].iterdir())]
        content = json.dumps({"id": "team/tiny", "sha": revision, "siblings": files}).encode()
        self.answer(content, "application/json", revision)

    def refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, content: bytes, kind: str, revision: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", revision)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a hub that has one model, team/tiny, with pickled parameters beside the safe ones, at two commits."""
    model, newer = (tmp_path_factory.mktemp("hub") / revision for revision in (COMMIT, NEWER))
    shutil.copytree(tiny_inputs / "model", model)
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    shutil.copytree(model, newer)
    (newer / "config.json").write_text((model / "config.json").read_text() + "\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, revisions={COMMIT: model, NEWER: newer}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(hub: str, folder: Path, *models: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the client reads its address when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-c", FETCH, *models],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_a_hub_id_becomes_a_model_folder_without_pickles(hub: str, tiny_inputs: Path, tmp_path: Path) -> None:
    from velocitune_core.model.folder import check_model_folder
    from velocitune_core.model.io import load_model
    from velocitune_core.model.tokenizer import load_tokenizer

    assert fetch(hub, tmp_path, "team/tiny").returncode == 0
    folder = tmp_path / "team/tiny"
    assert check_model_folder(str(folder)) == []
    assert load_model(str(folder)) is not None and load_tokenizer(str(folder)) is not None
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", ".gitignore"} <= names
    assert not {"pytorch_model.bin", ".cache"} & names
    assert json.loads((folder / "revision.json").read_text()) == {"model": "team/tiny", "revision": COMMIT}
    for file in (tiny_inputs / "model").iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes(), "of the commit that is recorded"


@pytest.mark.slow
def test_a_model_that_the_hub_lacks_is_named_and_leaves_no_folder(hub: str, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path, "team/absent")
    assert "HubError" in done.stderr and "'team/absent'" in done.stderr
    assert not (tmp_path / "team").exists()


def test_folders_are_not_fetched(tmp_path: Path) -> None:
    done = fetch("http://127.0.0.1:9", tmp_path, "models/mine", "./mine", "mine", "/a/b", "a/b/c")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("[Errno 111] Connection refused"), OfflineModeIsEnabled("offline"), RuntimeError()]
)
def test_a_hub_out_of_reach_is_one_message_with_the_fix_and_leaves_no_folder(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def model_info(*_: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    Path("somebody").mkdir()
    for model in ("nobody/nothing", "somebody/nothing"):
        with pytest.raises(HubError, match=rf"^model\.path: '{model}' is not a folder.*HF_ENDPOINT.*HF_TOKEN") as found:
            fetch_model(model)
        assert (str(error) or "RuntimeError") in str(found.value)
    assert sorted(workspace.iterdir()) == [workspace / "somebody"]
