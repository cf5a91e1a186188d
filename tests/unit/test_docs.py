"""The documents against the code: every published file and every parameter that they name, and none besides."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bin"))

from scresist import columns, status  # noqa: E402 - after the package is on the path

OUTPUT = (ROOT / "docs" / "output.md").read_text(encoding="utf-8")
PATH = re.compile(r"""\bpath\s*\(?\s*(?:'([^']+)'|"([^"]+)")""")
PARAMETER = re.compile(r"(?<![\w-])--([a-z][a-z0-9_]*)")
ROOT_FOLDER = "results"  # heading of the folder that conf/modules.config calls `.`


def expand(pattern: str) -> list[str]:
    """The names of a pattern with braces: `{a,b}.tsv` is a.tsv and b.tsv."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    return [name for part in match[1].split(",") for name in expand(pattern[: match.start()] + part + pattern[match.end() :])]


def of_unit(pattern: str) -> str:
    """`${meta.id}` as <sample>, `${patient}` as <patient> and so on."""
    return re.sub(r"\$\{(\w+)\}", r"<\1>", pattern.replace("${meta.id}", "<sample>"))


def declared() -> dict[str, set[str]]:
    """Process name -> file names of its output block, `${meta.id}` as <sample>."""
    found = {}
    for file in sorted((ROOT / "modules").glob("*/*.nf")):
        text = file.read_text(encoding="utf-8")
        match = re.search(r"^process (\w+) \{.*?^ *output:\n(.*?)^ *(?:script|when|shell|exec):", text, re.DOTALL | re.MULTILINE)
        if match:
            patterns = [single or double for single, double in PATH.findall(match[2])]
            found[match[1]] = {n for p in patterns for n in expand(of_unit(p))}
    return found


def is_published(name: str) -> bool:
    """The rule of saveAs in conf/modules.config, without --publish_intermediates."""
    if name.endswith(".provenance.json") or (name.endswith(".status.tsv") and name != "status.tsv"):
        return False
    return not name.endswith(".h5ad") or name == "cohort.h5ad"


def folders() -> dict[str, str]:
    """Process name -> folder in the results (ext.dir)."""
    text = (ROOT / "conf" / "modules.config").read_text(encoding="utf-8")
    found = re.findall(r"withName: '(\w+)' \{\s*ext\.dir = (?:'([^']+)'|\{ \"([^\"]+)\" \})", text)
    names = {name: (plain or closure).replace("${meta.id}", "<sample>") for name, plain, closure in found}
    return {name: ROOT_FOLDER if folder == "." else folder for name, folder in names.items()}


def of_the_run() -> set[str]:
    """Files that Nextflow and RunRecord write to pipeline_info/."""
    config = (ROOT / "nextflow.config").read_text(encoding="utf-8")
    record = (ROOT / "lib" / "RunRecord.groovy").read_text(encoding="utf-8")
    return set(re.findall(r"/pipeline_info/([\w.]+)\"", config)) | set(re.findall(r"folder\.resolve\('([\w.]+)'\)", record))


def published() -> dict[str, set[str]]:
    """Folder -> published files; folders that a step publishes whole are among them, without their content."""
    made: dict[str, set[str]] = {"pipeline_info": of_the_run()}
    for process, names in declared().items():
        made.setdefault(folders()[process], set()).update(name for name in names if is_published(name))
    return made


def documented() -> dict[str, list[str]]:
    """Folder -> file headings of output.md below it, in order; a folder's heading ends in a slash."""
    found: dict[str, list[str]] = {}
    folder = None
    for level, title in re.findall(r"^(#{2,4}) (.+)$", OUTPUT, re.MULTILINE):
        name = title.strip("`")
        if level == "##":
            folder = name.rstrip("/") if name.endswith("/") else None
        else:
            assert folder, f"output.md: the heading {title} stands below no folder"
            found.setdefault(folder, []).append(name)
    return found


def section(title: str) -> str:
    """Text of output.md from a file's heading to the next heading."""
    return re.split(r"^#{2,4} ", OUTPUT.split(f" `{title}`\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_declarations_are_read():
    made = declared()
    scripts = {file.stem.upper() for file in (ROOT / "bin").glob("*.py")}
    assert set(made) == scripts, "one process per script, each with an output block that this test can read"
    assert {"samples.tsv", "questions.tsv", "design.json"} <= made["CHECK_DESIGN"]
    assert {"<sample>.doublets.tsv", "<sample>.doublet_hist.tsv", "<sample>.doublets.parquet"} <= made["DETECT_DOUBLETS"]
    assert set(folders()) == set(made), "every process has an ext.dir in conf/modules.config"
    assert {"trace.txt", "params.json"} <= of_the_run()


def test_the_rule_of_publishing_is_the_one_in_the_configuration():
    text = (ROOT / "conf" / "modules.config").read_text(encoding="utf-8")
    for clause in ("name.endsWith('.status.tsv') && name != 'status.tsv'", "name.endsWith('.provenance.json')"):
        assert clause in text, "conf/modules.config publishes by another rule now: change is_published with it"
    assert "name.endsWith('.h5ad') && name != 'cohort.h5ad' && !params.publish_intermediates" in text


@pytest.mark.parametrize("folder", sorted(published()))
def test_every_published_file_has_its_heading_in_its_folder(folder):
    missing = {name for name in published()[folder] if name not in {n.rstrip("/") for n in documented().get(folder, [])}}
    assert not missing, f"describe {', '.join(sorted(missing))} in docs/output.md below `{folder}/`"


def test_every_file_in_output_md_is_published():
    made = published()
    for folder, names in documented().items():
        assert len(names) == len(set(names)), f"docs/output.md, {folder}: a file is described twice"
        for name in names:
            # the content of a folder that is published whole is declared by the folder
            assert name.split("/")[0] in made.get(folder, ()), f"docs/output.md: {folder}/{name} is not published by any step"


def test_the_truth_tables_are_those_that_the_simulation_writes():
    text = (ROOT / "bin" / "simulate_cohort.py").read_text(encoding="utf-8")
    names = re.findall(r'truth / "([\w.]+)"', text) + re.findall(r'(?m)^ {8}"(\w+\.tsv)": ', text)
    # several tables that one loop writes: their names stand in its head
    for head in re.findall(r'for table, name in \((.*)\):\n +io\.write_tsv\(table, truth / f"\{name\}\.tsv"\)', text):
        names += [f"{name}.tsv" for name in re.findall(r'"(\w+)"', head)]
    written = {f"truth/{name}" for name in names}
    assert {name for name in documented()["00_design/simulated"] if name.startswith("truth/") and name != "truth/"} == written


def test_intermediate_matrices_are_named():
    text = OUTPUT.split("## Not published", 1)[1]
    matrices = {name for names in declared().values() for name in names if name.endswith(".h5ad") and not is_published(name)}
    assert matrices and all(f"`{name}`" in text for name in matrices), matrices


def test_every_column_of_the_cells_is_explained():
    text = section("cells.parquet")
    missing = [name for name in columns.COLUMNS if f"`{name}`" not in text]
    assert not missing, f"explain {', '.join(missing)} in docs/output.md, cells.parquet"


def test_every_status_word_is_explained():
    rows = re.findall(r"^\| (.+?) \|", OUTPUT.split("## `", 1)[0], re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert named == set(status.WORDS)


def test_every_step_is_in_methods_md():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## ([A-Z_]+)$", text, re.MULTILINE))
    assert headings == set(declared())
    classes = text.split("## Determinism", 1)[1]
    assert all(process in classes for process in headings), "every step has a class of determinism"


def test_every_citation_of_methods_md_is_listed():
    text, references = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").split("## References", 1)
    listed = {int(n) for n in re.findall(r"^(\d+)\. ", references, re.MULTILINE)}
    cited = {int(n) for n in re.findall(r"(?<=[\w\s)]) ?\[(\d+)\]", text)}
    assert cited == listed == set(range(1, len(listed) + 1))


def pipeline_text(text: str) -> str:
    """A document without the commands of other programs: of its code blocks only lines that call nextflow stay."""
    kept, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside or "nextflow run" in line:
            kept.append(line)
    return "\n".join(kept)


@pytest.mark.parametrize("document", ["README.md", "docs/usage.md", "docs/output.md", "docs/methods.md"])
def test_every_parameter_named_in_a_document_exists(document):
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    known = {name for group in schema["$defs"].values() for name in group["properties"]} if "$defs" in schema else set()
    known |= {name for group in schema.get("definitions", {}).values() for name in group["properties"]}
    known |= set(schema.get("properties", {}))
    named = set(PARAMETER.findall(pipeline_text((ROOT / document).read_text(encoding="utf-8"))))
    assert named, f"{document} names no parameter: does the pattern still fit?"
    assert named <= known, f"{document} names {', '.join(sorted(named - known))}: nextflow_schema.json has no such parameter"


def test_defaults_in_methods_md_are_those_of_the_schema():
    """`--name` (value) and `--name` value, where a number follows at once."""
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    groups = [*schema.get("$defs", {}).values(), *schema.get("definitions", {}).values()]
    defaults = {name: entry.get("default") for group in groups for name, entry in group["properties"].items()}
    text = " ".join((ROOT / "docs" / "methods.md").read_text(encoding="utf-8").split())
    found = re.findall(r"`--([a-z_0-9]+)`,? \(?(?:default )?(\d+(?:\.\d+)?)(?=[ ),;%.])", text)
    found = [(name, value) for name, value in found if isinstance(defaults[name], int | float)]  # a list is no number
    assert len(found) > 20
    wrong = [f"--{name}: {value}, default {defaults[name]}" for name, value in found if float(value) != float(defaults[name])]
    assert not wrong, wrong
