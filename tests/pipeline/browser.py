"""Open a page in headless Chromium and say what it did: errors on its console, requests to other hosts, a picture.

Standard library and Chromium only. `python tests/pipeline/browser.py report.html [screenshot.png]` prints the findings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOCAL_SCHEMES = {"file", "data", "blob", "about", "chrome", "devtools", "chrome-extension", "chrome-untrusted"}
# What Chromium asks its maker by itself at start, on an empty page too; named closely, so that a page's fonts do not pass.
BROWSERS_OWN = ("clients2.google.com/time/", "update.googleapis.com/service/update2/", "accounts.google.com/ListAccounts")
# [pid:tid:date:INFO:CONSOLE(12)] "text", source: file:///... (12)
CONSOLE = re.compile(
    r':(?P<level>INFO|WARNING|ERROR):CONSOLE[:(](?P<line>\d+)\)?\] "(?P<text>.*?)", source: (?P<source>\S*)', re.DOTALL
)
MINIMUM_DOM = 60  # characters: an empty page prints fewer
ERROR_TEXT = re.compile(
    r"^(Uncaught|Error|TypeError|ReferenceError|SyntaxError|RangeError|Failed to load)|is not defined|Refused to", re.IGNORECASE
)


def find_browser() -> str | None:
    """Path of a Chromium, or None."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def inspect(
    html: Path | str, screenshot: Path | str | None = None, width: int = 1400, height: int = 6000, wait_ms: int = 15_000
) -> dict[str, Any]:
    """Load a page from disk with the network log on.

    Parameters
    ----------
    wait_ms
        virtual time that the page's scripts get before the picture is taken.

    Returns
    -------
    `console_errors`: texts; `foreign_requests`: addresses on any host; `screenshot`: Path or None; `title`: of the page.

    Raises
    ------
    FileNotFoundError
        when there is no Chromium.
    RuntimeError
        when it ends without having loaded the page.
    """
    browser = find_browser()
    if browser is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is on PATH")
    html = Path(html).resolve()
    picture = Path(screenshot).resolve() if screenshot else None
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "net.json"
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-extensions", "--no-first-run",
            "--no-default-browser-check",
            "--disable-features=OptimizationHints,MediaRouter,Translate", "--disable-dev-shm-usage",
            f"--user-data-dir={folder}/profile", f"--log-net-log={log}", "--net-log-capture-mode=Everything",
            "--enable-logging=stderr", "--v=0", f"--window-size={width},{height}", f"--virtual-time-budget={wait_ms}",
        ]  # fmt: skip
        # one call does one thing: a picture, or the page's own text after its scripts ran
        command.append(f"--screenshot={picture}" if picture else "--dump-dom")
        done = subprocess.run(
            [*command, html.as_uri()],
            capture_output=True,
            text=True,
            timeout=180,
            env={**os.environ, "HOME": folder},
            check=False,
        )
        log_written = log.is_file() and log.stat().st_size > 0
        addresses = requests(log)
    if not log_written:
        raise RuntimeError(f"{browser} wrote no network log (code {done.returncode}):\n{done.stderr[-2000:]}")
    if not picture and len(done.stdout) < MINIMUM_DOM:
        raise RuntimeError(f"{browser} did not load {html.name} (code {done.returncode}):\n{done.stderr[-2000:]}")
    if picture and not picture.is_file():
        raise RuntimeError(f"{browser} took no picture (code {done.returncode}):\n{done.stderr[-2000:]}")
    return {
        "console_errors": console_errors(done.stderr),
        "foreign_requests": sorted(address for address in addresses if is_foreign(address)),
        "screenshot": picture,
        "dom": "" if picture else done.stdout,
    }


def console_errors(log: str) -> list[str]:
    """Errors of the page's scripts in Chromium's log: those at level ERROR, and uncaught ones, which it logs as INFO."""
    found = []
    for match in CONSOLE.finditer(log):
        if match["level"] == "ERROR" or ERROR_TEXT.search(match["text"]):
            found.append(f"{match['text']} (line {match['line']})")
    return found


def requests(log: Path) -> set[str]:
    """Every address that the browser asked for, from its network log (whose end may be missing)."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return set(re.findall(r'"(?:url|original_url|location)":"((?:[^"\\]|\\.)*)"', text))


def is_foreign(address: str) -> bool:
    """Whether an address leads to a host and is not one of the browser's own."""
    parts = urlsplit(address)
    if parts.scheme in LOCAL_SCHEMES or not parts.netloc:
        return False
    return not f"{parts.netloc}{parts.path}".startswith(BROWSERS_OWN)


if __name__ == "__main__":
    result = inspect(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    result["screenshot"] = str(result["screenshot"])
    result["dom"] = f"{len(result['dom'])} characters"
    print(json.dumps(result, indent=1))
