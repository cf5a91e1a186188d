"""`nextflow lint` over main.nf and modules/, with one known blind spot: it does not read the classes in lib/.

The strict syntax of newer Nextflow releases is checked; config files are left out, because the linter of 25.04.4 with
nf-lang 25.04.0 stops on them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def problems(text: str, classes: set[str]) -> list[str]:
    """Lines of the linter's output that report an error or a warning, except undefined names that are lib/ classes."""
    found = []
    for line in text.splitlines():
        match = re.match(r"^(Error|Warn\w*) +(\S+:\d+:\d+: .*)$", line)
        if match is None:
            continue
        name = re.search(r"`(\w+)` is not defined", line)
        if not (name and name.group(1) in classes):
            found.append(match.group(2))
    return found


def main() -> int:
    classes = {path.stem for path in (ROOT / "lib").glob("*.groovy")}
    files = ["main.nf", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "modules").rglob("*.nf"))]
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "nextflow", "-log", "/dev/null", "lint", *files], cwd=ROOT, capture_output=True, text=True
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    linted = sum(line.startswith("Linting: ") for line in text.splitlines())
    found = problems(text, classes)
    if linted < len(files):
        found.append(f"only {linted} of {len(files)} files were read:\n{text}")
    print("\n".join(found) if found else f"nextflow lint: {linted} files clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
