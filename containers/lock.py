"""Resolve every requirements.in to a pinned, hashed requirements.txt: `make lock`.

containers/all is resolved first; every tool's file is then a subset under its pins, so that a container and the local
environment never differ. `--check` exits with 1 when a tool's pins differ from containers/all.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON_VERSION = "3.11"  # the oldest one supported; --universal covers the newer ones
OPTIONS = [
    "--universal", "--python-version", PYTHON_VERSION, "--generate-hashes", "--no-header", "--no-annotate",
    "--no-emit-index-url", "--no-emit-find-links", "--quiet", "--override", str(HERE / "all" / "overrides.txt"),
]  # fmt: skip


def pins(path: Path) -> set[str]:
    """The `name==version` (with its marker) lines of a requirements.txt."""
    return {re.sub(r"\s*\\$", "", line) for line in path.read_text().splitlines() if re.match(r"^[A-Za-z0-9]", line)}


def tools() -> list[Path]:
    """Folders with a requirements.in, containers/all and containers/uv apart."""
    return sorted(p.parent for p in HERE.glob("*/requirements.in") if p.parent.name not in ("all", "uv"))


def strangers() -> list[str]:
    """Pins of a tool that containers/all does not hold, by name and version."""
    name_version = re.compile(r"^[A-Za-z0-9._-]+==[^ ;]+")
    allowed = {name_version.match(pin).group() for pin in pins(HERE / "all" / "requirements.txt")}
    return [
        f"containers/{tool.name}/requirements.txt: {pin}"
        for tool in tools()
        for pin in sorted(pins(tool / "requirements.txt"))
        if name_version.match(pin).group() not in allowed
    ]


def main(argv: list[str]) -> int:
    if argv != ["--check"]:
        own = HERE.parent / ".venv" / "bin" / "uv"
        uv = str(own) if own.exists() else shutil.which("uv")
        if uv is None:
            print("uv is not on PATH. Mend: make setup", file=sys.stderr)
            return 1
        everything = HERE / "all" / "requirements.txt"
        subprocess.run([uv, "pip", "compile", *OPTIONS, str(everything.with_suffix(".in")), "-o", str(everything)], check=True)
        for tool in tools():
            source = tool / "requirements.in"
            subprocess.run(
                [uv, "pip", "compile", *OPTIONS, "-c", str(everything), str(source), "-o", str(source.with_suffix(".txt"))],
                check=True,
            )
    found = strangers()
    print("\n".join(found) if found else "containers: every tool's pins are those of containers/all")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
