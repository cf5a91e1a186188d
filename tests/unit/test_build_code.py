"""Digests of the package modules behind each script, on a small tree of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "conf" / "build_code.py"

spec = importlib.util.spec_from_file_location("build_code", SCRIPT)
build_code = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_code)


@pytest.fixture
def tree(tmp_path) -> Path:
    files = {
        "scresist/__init__.py": "",
        "scresist/a.py": "from scresist import b\n",
        "scresist/b.py": "import json\nfrom .c import x\n",
        "scresist/c.py": "from . import a\nx = 1\n",  # a circle
        "scresist/late.py": "",
        "scresist/typed.py": "",
        "scresist/sub/__init__.py": "from ..late import y\n",
        "scresist/sub/deep.py": "",
        "scresist/alone.py": "",
        "direct.py": "from scresist import a, __version__\n",
        "inside.py": "def main():\n    from scresist import late as l\n    return l\n",
        "dotted.py": "import scresist.sub.deep\n",
        "bare.py": "import sys\n",
        "only.py": "import scresist\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("script", "modules"),
    [
        ("direct", ["__init__", "a", "b", "c"]),
        ("inside", ["__init__", "late"]),
        ("dotted", ["__init__", "late", "sub/__init__", "sub/deep"]),
        ("bare", []),
        ("only", ["__init__"]),
    ],
)
def test_modules_behind(tree, script, modules):
    found = [
        path.relative_to(tree / "scresist").with_suffix("").as_posix()
        for path in build_code.modules_behind(tree / f"{script}.py")
    ]
    assert found == modules


@pytest.mark.parametrize(
    ("edited", "moved"),
    [
        ("scresist/c.py", {"direct"}),
        ("scresist/late.py", {"inside", "dotted"}),
        ("scresist/__init__.py", {"direct", "inside", "dotted", "only"}),
        ("scresist/alone.py", set()),
        ("direct.py", set()),  # Nextflow hashes the script itself
    ],
)
def test_an_edit_moves_exactly_the_scripts_that_import_it(tree, edited, moved):
    scripts = sorted(tree.glob("*.py"))
    before = {path.stem: build_code.digest(path) for path in scripts}
    with (tree / edited).open("a") as handle:
        handle.write("# edited\n")
    assert {path.stem for path in scripts if build_code.digest(path) != before[path.stem]} == moved


def test_file_is_sorted_and_checked(tree, tmp_path):
    out = tmp_path / "code.config"
    call = [sys.executable, str(SCRIPT), "--bin", str(tree), "--output", str(out)]
    missing = subprocess.run([*call, "--check"], capture_output=True, text=True)
    assert missing.returncode == 1 and "run `make code`" in missing.stderr and not out.exists()
    assert subprocess.run(call).returncode == 0
    names = [line.split("'")[1] for line in out.read_text().splitlines() if "withName" in line]
    assert names == ["BARE", "DIRECT", "DOTTED", "INSIDE", "ONLY"]
    assert subprocess.run([*call, "--check"]).returncode == 0
    (tree / "scresist" / "b.py").write_text("z = 2\n")
    stale = subprocess.run([*call, "--check"], capture_output=True, text=True)
    assert stale.returncode == 1 and "DIRECT" in stale.stderr and "INSIDE" not in stale.stderr


def test_star_import_is_refused(tree):
    (tree / "bare.py").write_text("from scresist.a import *\n")
    with pytest.raises(ValueError, match="name the modules"):
        build_code.digest(tree / "bare.py")
