"""A hub that keeps repositories in memory: enough of its HTTP interface for a push, and it can break."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandInHub:
    """repositories: {"models/NAME": {"private", "files": {path: bytes}, "commits": list of their messages}}.

    token: the one that may write; seen: "METHOD /path" of all requests; broken: how many uploads of large
    files fail before one succeeds.
    """

    def __init__(self, token):
        self.token, self.repositories, self.seen, self.large, self.broken = token, {}, [], {}, 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.seen.append(f"{self.command} {self.path}")
                allowed = self.headers.get("Authorization") == f"Bearer {hub.token}"
                # Uploads of large files go to storage that was authorized before.
                status, made = (
                    hub.reply(self.command, self.path, body)
                    if allowed or "/large/" in self.path
                    else (401, {})
                )
                text = json.dumps(made).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def reply(self, method, path, body):
        """(status, answer) to a request."""
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if found := re.match(r"/large/(\w+)$", path):
            self.broken -= 1
            if self.broken >= 0:
                return 400, {}
            assert hashlib.sha256(body).hexdigest() == found[1]
            self.large[found[1]] = body
            return 200, {}
        if found := re.match(r"/(datasets/)?([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch$", path):
            wanted = [one for one in json.loads(body)["objects"] if one["oid"] not in self.large]
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/large/{one['oid']}"}}} for one in wanted
            ]
            return 200, {"transfer": "basic", "objects": objects}
        found = re.match(
            r"/api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/(preupload|commit|revision)/main)?(?:\?.*)?$", path
        )
        if not found or f"{found[1]}/{found[2]}" not in self.repositories:
            return 404, {}
        repository = self.repositories[f"{found[1]}/{found[2]}"]
        if method == "GET":
            return 200, {"id": found[2], "sha": self.sha(repository), "private": repository["private"]}
        return (
            self.preupload(repository, body)
            if found[3] == "preupload"
            else self.commit(found[2], repository, body)
        )

    def create(self, asked):
        name = f"{asked['type']}s/{asked['organization']}/{asked['name']}"
        address = f"{self.url}/{'datasets/' if asked['type'] == 'dataset' else ''}{name.split('/', 1)[1]}"
        if name in self.repositories:
            return 409, {"url": address}
        private = asked.get("private", asked.get("visibility") == "private")
        self.repositories[name] = {"private": private, "files": {}, "commits": []}
        return 200, {"url": address}

    def preupload(self, repository, body):
        def look(file):
            held = repository["files"].get(file["path"])
            large = file["path"].endswith((".safetensors", ".parquet"))
            oid = held and (hashlib.sha256(held).hexdigest() if large else git_sha(held))
            mode = "lfs" if large else "regular"
            return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

        return 200, {"files": [look(file) for file in json.loads(body)["files"]]}

    def commit(self, name, repository, body):
        header, *files = map(json.loads, body.splitlines())
        for file in files:
            value = file["value"]
            held = (
                self.large[value["oid"]] if file["key"] == "lfsFile" else base64.b64decode(value["content"])
            )
            repository["files"][value["path"]] = held
        repository["commits"].append(header["value"]["summary"])
        return 200, {
            "commitUrl": f"{self.url}/{name}/commit/{self.sha(repository)}",
            "commitOid": self.sha(repository),
        }

    def sha(self, repository):
        return hashlib.sha1(repr(sorted(repository["files"].items())).encode()).hexdigest()


def git_sha(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def serving(token):
    hub = StandInHub(token)
    try:
        yield hub
    finally:
        hub.close()
