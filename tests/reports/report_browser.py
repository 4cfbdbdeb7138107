"""Headless Chromium for tests: a page is opened with a script, and what the script says comes back.

Chromium alone is enough: `--dump-dom` prints the page after its scripts ran.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
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


def evaluate(page: Path, script: str, width: int = 1000, height: int = 900) -> Any:
    """Open a page and return what the function body `script` returns, as JSON.

    What the page complains about on its console stands in `window.problems`.
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
        copy.as_uri(),
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
