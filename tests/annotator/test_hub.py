"""Pushing to a hub: against a small server of the few calls that it needs, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotator.errors import Gone, Invalid, MethodFailed, NotAllowed
from annotator.models import AuditEvent, DatasetVersion
from annotator.services import dataset_versions, deliveries, hub
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.test_exports import version_of

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # The package sends files in a way that its own client no longer likes.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

TOKEN = "hf_aSecretThatNobodyMayRead"


@dataclass
class Hub:
    """What the server holds, and how it is told to behave."""

    address: str = ""
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # by path, of the last commit
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256
    calls: list[str] = field(default_factory=list)
    refuses: str = ""  # a part of the path that is answered with 403
    sends_large_to: str = ""
    redirects_to: str = ""


def handler_of(hub_: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Quiet."""

        def answer(self, body: Any, status: int = 200, **headers: str) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_PUT(self) -> None:
            data = self.body()
            hub_.stored[hashlib.sha256(data).hexdigest()] = data
            self.answer({})

        def do_POST(self) -> None:
            data, path = self.body(), self.path
            hub_.calls.append(path)
            if hub_.refuses and hub_.refuses in path:
                return self.answer({"error": "no"}, 403)
            if hub_.redirects_to:
                return self.answer({}, 307, Location=hub_.redirects_to)
            if "validate-yaml" in path:
                return self.answer({"warnings": [], "errors": []})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.answer({"error": "who?"}, 401)
            if path == "/api/repos/create":
                asked = json.loads(data)
                name = f"{asked['organization']}/{asked['name']}"
                if name in hub_.repos:
                    return self.answer({"url": f"{hub_.address}/datasets/{name}"}, 409)
                hub_.repos[name] = asked
                return self.answer({"url": f"{hub_.address}/datasets/{name}"})
            if "/preupload/" in path:
                files = json.loads(data)["files"]
                return self.answer({"files": [self.mode(one) for one in files]})
            if path.endswith("/info/lfs/objects/batch"):
                return self.answer({"transfer": "basic", "objects": self.large(json.loads(data))})
            if "/commit/" in path:
                self.commit(data)
                url = f"{hub_.address}/datasets/o/n/commit/abc"
                return self.answer({"commitUrl": url, "commitOid": "abc"})
            return self.answer({"error": "nothing here"}, 404)

        def mode(self, one: dict[str, Any]) -> dict[str, Any]:
            is_large = one["path"].endswith((".jsonl", ".parquet"))
            how = "lfs" if is_large else "regular"
            return {"path": one["path"], "uploadMode": how, "shouldIgnore": False}

        def large(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
            where = hub_.sends_large_to or hub_.address
            return [
                one | {"actions": {"upload": {"href": f"{where}/lfs/{one['oid']}"}}}
                for one in asked["objects"]
            ]

        def commit(self, data: bytes) -> None:
            hub_.files = {}
            for line in data.splitlines():
                said = json.loads(line)
                value = said["value"]
                if said["key"] == "file":
                    hub_.files[value["path"]] = base64.b64decode(value["content"])
                elif said["key"] == "lfsFile":
                    hub_.files[value["path"]] = hub_.stored[value["oid"]]

    return Handler


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    # Other tests of this process may have told the package, once and for all, to stay offline.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    found = Hub()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(found))
    host = f"127.0.0.1:{http.server_address[1]}"
    found.address = f"http://{host}"
    settings.HF_ENDPOINT, settings.HF_TOKEN, settings.HUB_HOSTS = found.address, TOKEN, [host]
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield found
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def version() -> DatasetVersion:
    project = factories.project()
    people = raters(project, 2)
    judged_pair(project, [1, 1], by=people, texts=("naïve – “quotes” 🪨", "bad"))
    judged_pair(project, [1], by=people, of=factories.prompt(project, split="test"))
    return version_of(project)


def push(version: DatasetVersion, **more: Any) -> str:
    return hub.push(**({"version": version, "repo": "o/n", "is_private": True, "by": None} | more))


def test_every_file_arrives_as_it_is_in_one_commit(
    server: Hub, version: DatasetVersion, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    call_command("push_dataset", version.project.slug, "1", "--repo", "o/n", "--private", "--json")
    said = capsys.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert (result["rows"], result["repo"]) == (2, "o/n")
    assert result["commit"].endswith("/commit/abc")
    assert server.files == {
        name: deliveries.path_of(version, name).read_bytes()
        for name in deliveries.file_names(version)
    }
    made = server.repos["o/n"]
    assert made["type"] == "dataset"
    assert made.get("private") is True or made.get("visibility") == "private"
    event = AuditEvent.objects.get(verb="dataset.push")
    assert (event.data["repo"], event.data["endpoint"]) == ("o/n", server.address)
    assert AuditEvent.objects.get(verb="dataset.download").data["via"] == "hub"
    for text in (said.out, said.err, caplog.text, *map(str, AuditEvent.objects.values())):
        assert TOKEN not in text
    assert push(version).endswith("/abc"), "a repository that is there is pushed to again"


def test_no_host_is_called_that_the_operator_did_not_allow(
    server: Hub, version: DatasetVersion, settings: Any
) -> None:
    settings.HUB_HOSTS = ["huggingface.co"]
    with pytest.raises(NotAllowed, match="may not push"):
        push(version)
    settings.HUB_HOSTS = []
    with pytest.raises(NotAllowed, match="may not push"):
        push(version)
    settings.HF_ENDPOINT = "file:///etc"
    with pytest.raises(Invalid, match="names a host"):
        push(version)
    assert server.calls == []


def test_neither_a_redirect_nor_an_upload_leads_elsewhere(
    server: Hub, version: DatasetVersion
) -> None:
    server.sends_large_to = "http://127.0.0.1:9"
    with pytest.raises(MethodFailed, match=r"may not push to http://127.0.0.1:9\b"):
        push(version)
    assert server.files == {}
    assert server.stored == {}
    server.redirects_to = "http://127.0.0.1:9/else"
    with pytest.raises(NotAllowed, match=r"127.0.0.1:9\b"):
        push(version)
    assert not AuditEvent.objects.filter(verb="dataset.push").exists()


@pytest.mark.parametrize("what", ["create", "preupload", "batch", "commit"])
def test_a_refusal_is_told_without_the_token(
    server: Hub, version: DatasetVersion, what: str
) -> None:
    server.refuses = what
    with pytest.raises(MethodFailed) as caught:
        push(version)
    assert "403" in caught.value.message
    assert "HF_TOKEN" in caught.value.advice
    assert TOKEN not in caught.value.message
    assert server.files == {}


def test_a_hub_that_is_away_is_told(version: DatasetVersion, server: Hub, settings: Any) -> None:
    settings.HF_ENDPOINT, settings.HUB_HOSTS = "http://127.0.0.1:9", ["127.0.0.1:9"]
    with pytest.raises(MethodFailed, match="cannot be pushed to"):
        push(version)


def test_what_cannot_be_pushed_is_said(version: DatasetVersion, server: Hub, settings: Any) -> None:
    for repo in ("o", "o/n/x", "../n", "o/n--m", "o/n ", "o/" + "n" * 200, "o/n..m", "/n"):
        with pytest.raises(Invalid, match="OWNER/NAME"):
            push(version, repo=repo)
    settings.HF_TOKEN = ""
    with pytest.raises(Invalid, match="no token"):
        push(version)
    dataset_versions.delete(version=version, by=None)
    version.refresh_from_db()
    with pytest.raises(Gone):
        push(version)
    for args, words in (
        ((version.project.slug, "9"), "no dataset 9"),
        (("nowhere", "1"), "no project"),
        ((version.project.slug, "1"), "was deleted"),
    ):
        with pytest.raises(CommandError, match=words):
            call_command("push_dataset", *args, "--repo", "o/n")
    assert server.calls == []
