"""Headless Chromium for tests: a page is opened with a script, and what the script says comes back.

Chromium alone is enough: `--dump-dom` prints the page after its scripts ran.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_CATCH = "<script>window.problems=[];addEventListener('error',e=>problems.push(String(e.message)));\
console.error=console.warn=(...a)=>problems.push(a.join(' '));</script>"


def chromium() -> str:
    """Return the browser's program; skip where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no {' or '.join(NAMES)} on the path: apt install chromium")
    return found


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Callable[[Path], str]]:
    """Serve a folder on this machine; give what makes the address of a file below it."""
    handler = functools.partial(_Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_address[1]}"
        yield lambda path: f"{root}/{path.relative_to(folder).as_posix()}"
        server.shutdown()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


def evaluate(
    page: Path,
    script: str,
    width: int = 1000,
    height: int = 900,
    address: Callable[[Path], str] = Path.as_uri,
) -> Any:
    """Open a page and return what the function body `script` returns, as JSON.

    What the page complains about on its console stands in `window.problems`. `address` is the
    page's, by its path.
    """
    program = chromium()
    text = page.read_text(encoding="utf-8")
    runner = (
        "<script>addEventListener('load', async () => { let answer;"
        f"try {{ answer = await (async () => {{ {script} }})(); }}"
        "catch (error) { answer = {error: String(error.stack)}; }"
        "const node = document.createElement('pre'); node.id = 'answer';"
        "node.textContent = JSON.stringify(answer); document.body.append(node); });</script>"
    )
    copy = page.with_name(f".test-{page.name}")
    text = text.replace("<head>", "<head>" + _CATCH, 1)
    copy.write_text(text.replace("</body>", runner + "</body>", 1), encoding="utf-8")
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--window-size={width},{height}", "--virtual-time-budget=20000", "--dump-dom",
        address(copy),
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    copy.unlink()
    found = re.search(r'<pre id="answer">(.*?)</pre>', output.stdout, re.DOTALL)
    assert found, output.stderr[-2000:]
    return json.loads(unescape(found[1]))


def node_module(name: str) -> Path:
    """Return an installed npm package's folder; skip where there is none."""
    import os

    root = Path(os.environ.get("PURER_BENCH_NODE_MODULES", "node_modules"))
    if not (root / name).is_dir():
        pytest.skip(f"no {name} in {root}: npm install {name}, or set PURER_BENCH_NODE_MODULES")
    return root / name
