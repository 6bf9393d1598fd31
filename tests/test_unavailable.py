"""Servers that will never answer: one clear sentence within seconds, exit code 3, and no word of the key."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KEY = "sk-very-secret"
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x16"


def reply(status: str, body: str, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", body]).encode()


def error(status: str, words: str) -> bytes:
    return reply(status, json.dumps({"error": {"message": words}}))


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """A server that says the same to everybody; gives HOST:PORT."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve(connection: socket.socket) -> None:
        with connection:
            got = b""
            while got[:1] in (b"", b"P") and not got.endswith(b"}") and (more := connection.recv(65536)):
                got += more
            connection.sendall(answer)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


HTML = "<html><head><title>Sign in</title></head><body>" + "<p>Welcome to the proxy.</p>" * 400 + "</body></html>"
CASES = {
    "wrong key": (error("401 Unauthorized", f"Incorrect API key provided: {KEY}"), "http", "check the key"),
    "no right": (error("403 Forbidden", "You have no access to this model."), "http", "may not use this model"),
    "unknown model": (error("404 Not Found", "The model `fake` does not exist."), "http", "is 'fake' the name"),
    "no money": (error("402 Payment Required", "Insufficient balance."), "http", "check base_url and the account"),
    "nobody listens": (b"", "refused", "is the server running?"),
    "no such host": (b"", "no host", "is the host's name in base_url right?"),
    "https to a plain port": (error("400 Bad Request", "no"), "https", "does it speak https? If not, base_url begins"),
    "http to a TLS port": (TLS_ALERT, "http", "base_url begins with https://"),
    "a web page": (reply("200 OK", HTML, kind="text/html"), "http", "a web page"),
    "a page that is not there": (reply("404 Not Found", HTML, kind="text/html"), "http", "end in /v1"),
    "redirect": (reply("302 Found", "", f"Location: https://login.example/?key={KEY}"), "http", "it points to"),
    "other JSON": (reply("200 OK", '{"status": "ok"}'), "http", "does base_url lead to"),
}


SLOWER = {*CASES} - {"wrong key", "unknown model", "nobody listens", "a web page"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.heavy) if case in SLOWER else case for case in CASES]
)
def test_a_server_that_will_never_answer_is_told_in_a_sentence(case: str, tmp_path: Path) -> None:
    answer, how, remedy = CASES[case]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"q": f"q{n}"}) + "\n" for n in range(100)))
    with saying(answer) as address:
        if how == "refused":
            address = "127.0.0.1:9"
        elif how == "no host":
            address = "no-such-host.invalid:80"
        url = f"{'https' if how == 'https' else 'http'}://{address}/v1"
        (tmp_path / "r.yaml").write_text(
            f"models: {{teacher: {{base_url: '{url}', model: fake, api_key: '${{T_KEY}}', connect_patience: 1}}}}\n"
            "steps:\n"
            "  - {name: given, block: read_jsonl, path: in.jsonl, fields: [q]}\n"
            "  - {name: r, block: respond, prompt: 'say {{ q }}'}\n"
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "autoif_blocks", "run", "r.yaml", "--output-dir", "out", "--quiet"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "T_KEY": KEY},
        )  # fmt: skip
        seconds = time.monotonic() - began
    assert done.returncode == 3, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ")
    assert len(sentence) < 600
    assert url in sentence
    assert "fake" in sentence
    assert remedy in sentence
    assert seconds < 20
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in done.stderr + done.stdout
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "failed"
