"""The set-up script's own parts: manifest, prerequisites, stamps. The set-up itself is what every other test stands on."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest


@pytest.fixture
def setup(root):
    spec = importlib.util.spec_from_file_location("setup_environment", root / "containers" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_manifest_lines_hold_72_bytes_and_read_back_whole(setup):
    jars = [f"jars/some-library-with-a-long-name-{i}.0.{i}.jar" for i in range(60)]
    text = setup.manifest_text(jars)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 72  # the jar format's limit
    joined = text.replace("\n ", "")
    assert f"Class-Path: {' '.join(jars)}\n" in joined
    assert text.endswith("\n\n")


def test_every_missing_prerequisite_is_named_with_its_mend(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 1))
    with pytest.raises(setup.SetupError) as error:
        setup.check_prerequisites()
    text = str(error.value)
    for mend in ("make setup PYTHON=python3.11", "apt-get install python3-venv", "apt-get install procps", "apt-get install git"):
        assert mend in text


def test_an_unfinished_setup_is_not_done(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp.txt")
    (tmp_path / "bin").mkdir()
    for name in ("python", "nextflow"):
        (tmp_path / "bin" / name).touch()
    assert not setup.is_done()
    setup.STAMP.write_text("digest of another state\n")
    assert not setup.is_done()
    setup.STAMP.write_text(setup.digest_of_inputs() + "\n")
    assert setup.is_done()
    (tmp_path / "bin" / "nextflow").unlink()
    assert not setup.is_done()


def test_the_stock_launcher_is_kept_and_never_replaced_by_ours(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "VENV", tmp_path)
    (tmp_path / "nextflow").mkdir()
    launcher = tmp_path / "launched"
    launcher.write_text("#!/bin/bash\necho stock\n")
    setup.keep_stock_launcher("uv", launcher)
    assert (tmp_path / "nextflow" / "launcher").read_text() == "#!/bin/bash\necho stock\n"
    launcher.write_text(f"#!/bin/bash\n{setup.MARK}\n")
    setup.keep_stock_launcher("uv", launcher)  # a second set-up: our own launcher stands there now
    assert (tmp_path / "nextflow" / "launcher").read_text() == "#!/bin/bash\necho stock\n"


def test_users_own_nextflow_is_taken_when_recent(setup, monkeypatch, tmp_path):
    own = tmp_path / "nextflow"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for version, taken in (("25.04.0", True), ("26.10.3", True), ("24.10.5", False)):
        own.write_text(f"#!/bin/sh\necho 'nextflow version {version}.1234'\n")
        own.chmod(0o755)
        assert (setup.user_nextflow() == str(own)) is taken


def test_a_second_call_ends_at_once(root):
    done = subprocess.run([sys.executable, root / "containers" / "setup.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""
