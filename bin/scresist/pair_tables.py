"""Tables of ligand-receptor pairs as users have them, each turned into the one form that `communication.read_pairs` takes.

Three forms are told apart by their columns: families (ours, assets/lr_pathways.tsv: names for the pairs of liana's consensus
resource), pairs (one row per pair with its genes), and the interaction table of CellChatDB with its complexes and cofactors.
"""

from __future__ import annotations

import importlib.util
import re
import zlib
from pathlib import Path

import pandas as pd

from scresist.communication import COFACTORS, REQUIRED, SEPARATOR, check_table, gene_list
from scresist.io import InputError

FAMILY_COLUMNS = ("pathway", "annotation", "ligand", "receptor", *COFACTORS, "source")
CELLCHAT_COLUMNS = ("interaction_name", "pathway_name", "ligand", "receptor")
CELLCHAT_COFACTORS = {"agonist": "agonist", "antagonist": "antagonist", "co_a": "co_A_receptor", "co_i": "co_I_receptor"}
NON_PROTEIN = "Non-protein Signaling"  # annotation of CellChatDB v2: the ligand is a small molecule, its "genes" are enzymes
OTHER = "other:"  # prefix of the pathway of a pair that no family names; the ligand follows
RESOURCE = "consensus"
RESOURCE_LICENCE = "BSD-3-Clause (liana)"
COMPLEX = "_"  # between the subunits of a complex in liana's resource
PAIR = ":"  # between ligand and receptor in the name of a pair
ANNOTATIONS = ("Secreted Signaling", "ECM-Receptor", "Cell-Cell Contact")
SHOWN = 20  # problems listed in a message


def read_table(path: Path) -> pd.DataFrame:
    """A text table, plain or gzip, tabs or commas, every cell text; R's NA is empty.

    Raises
    ------
    InputError
        when the file is no table.
    """
    try:
        first = pd.read_csv(path, sep="\x01", header=None, nrows=1, dtype=str, encoding="utf-8-sig").iloc[0, 0]
        frame = pd.read_csv(
            path, sep="\t" if "\t" in first else ",", dtype=str, keep_default_na=False, na_values=["", "NA"], encoding="utf-8-sig"
        )
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path.name}: cannot be read as a table ({error})") from None
    return frame.fillna("")


def liana_resource() -> pd.DataFrame:
    """Pairs of liana's consensus resource: ligand, receptor (subunits of a complex joined by `_`), each once, sorted.

    Read from the installed package without importing it, which costs seconds.
    """
    spec = importlib.util.find_spec("liana")
    if spec is None or spec.origin is None:
        raise InputError("the package liana is not installed: its consensus resource is needed, or give a table of pairs")
    frame = pd.read_csv(Path(spec.origin).parent / "resource" / "omni_resource.csv", index_col=False)
    frame = frame[frame["resource"] == RESOURCE]
    frame = frame.rename(columns={"source_genesymbol": "ligand", "target_genesymbol": "receptor"})[["ligand", "receptor"]]
    return frame.drop_duplicates().sort_values(["ligand", "receptor"], ignore_index=True)


def _patterns(text: str) -> list[re.Pattern[str]]:
    return [re.compile(part) for part in gene_list(text)]


def check_families(families: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table of families, checked.

    Raises
    ------
    InputError
        naming every row without pathway, ligand or receptor, and every pattern that is no regular expression.
    """
    absent = [column for column in FAMILY_COLUMNS if column not in families]
    if absent:
        raise InputError(f"{name}: no column {', '.join(absent)}; columns are {', '.join(families)}")
    problems = []
    for row, entry in enumerate(families.itertuples(index=False), start=2):
        problems += [f"row {row}: `{c}` is empty" for c in ("pathway", "ligand", "receptor", "source") if not getattr(entry, c)]
        if entry.annotation not in ANNOTATIONS:
            problems.append(f"row {row}: annotation {entry.annotation!r} is not one of {', '.join(ANNOTATIONS)}")
        for side in ("ligand", "receptor"):
            for part in gene_list(getattr(entry, side)):
                try:
                    re.compile(part)
                except re.error as error:
                    problems.append(f"row {row}: {side} {part!r} is no regular expression: {error}")
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems[:SHOWN]))
    return families


def name_pathways(resource: pd.DataFrame, families: pd.DataFrame, name: str = "the table of families") -> pd.DataFrame:
    """Join families to the pairs of a resource: one row per pair, in the columns of `communication.REQUIRED` and OPTIONAL.

    A pair belongs to the first family (in the order of the table) of which every subunit of its ligand matches one of the ligand
    patterns and at least one subunit of its receptor one of the receptor patterns; patterns match whole gene names. A pair of no
    family has the pathway `other:<ligand>`, no annotation and no cofactors.

    Parameters
    ----------
    resource
        ligand, receptor; subunits joined by `_`.
    families
        columns FAMILY_COLUMNS.
    """
    families = check_families(families, name)
    ligands = {text: tuple(text.split(COMPLEX)) for text in resource["ligand"].unique()}
    receptors = {text: tuple(text.split(COMPLEX)) for text in resource["receptor"].unique()}
    sides = []
    for entry in families.itertuples(index=False):
        wanted, taken = _patterns(entry.ligand), _patterns(entry.receptor)
        sides.append(
            (
                {text for text, genes in ligands.items() if all(any(p.fullmatch(gene) for p in wanted) for gene in genes)},
                {text for text, genes in receptors.items() if any(any(p.fullmatch(gene) for p in taken) for gene in genes)},
            )
        )
    entries, rows = families.to_dict("records"), []
    for ligand, receptor in zip(resource["ligand"], resource["receptor"], strict=True):
        at = next((i for i, (left, right) in enumerate(sides) if ligand in left and receptor in right), None)
        entry = entries[at] if at is not None else {}
        rows.append(
            {
                "pair": ligand + PAIR + receptor,
                "pathway": entry.get("pathway", OTHER + ligand),
                "annotation": entry.get("annotation", ""),
                "ligand": ligand,
                "receptor": receptor,
                "ligand_genes": SEPARATOR.join(ligands[ligand]),
                "receptor_genes": SEPARATOR.join(receptors[receptor]),
                **{column: entry.get(column, "") for column in COFACTORS},
                "version": f"liana {RESOURCE}",
                "licence": RESOURCE_LICENCE,
            }
        )
    return pd.DataFrame(rows)


def _members(frame: pd.DataFrame | None, prefix: str) -> dict[str, tuple[str, ...]]:
    """Name -> genes of a table of complexes or cofactors: the name in the first column, genes in `<prefix>...` columns."""
    if frame is None:
        return {}
    columns = [column for column in frame if str(column).startswith(prefix)]
    names = frame.iloc[:, 0].astype(str).str.strip()
    return {
        name: tuple(dict.fromkeys(gene.strip() for gene in row if gene.strip()))
        for name, row in zip(names, frame[columns].to_numpy(dtype=str), strict=True)
    }


def from_cellchat(
    interactions: pd.DataFrame,
    complexes: pd.DataFrame | None,
    cofactors: pd.DataFrame | None,
    name: str = "the interaction table",
) -> pd.DataFrame:
    """CellChatDB's tables in our columns; rows whose ligand is no protein are left out.

    Raises
    ------
    InputError
        naming every complex and every cofactor group that no table explains.
    """
    table = interactions[interactions["annotation"] != NON_PROTEIN] if "annotation" in interactions else interactions
    complex_genes, cofactor_genes = _members(complexes, "subunit"), _members(cofactors, "cofactor")
    problems = []
    for given, prefix, members, option in (
        (complexes, "subunit", complex_genes, "--lr_complexes"),
        (cofactors, "cofactor", cofactor_genes, "--lr_cofactors"),
    ):
        if given is not None and not any(members.values()):
            problems.append(
                f"{option}: no genes found; expected names in the first column and genes in {prefix}_1 or {prefix}1, ..."
            )
    unknown = set()
    for side in ("ligand", "receptor"):
        symbols = table[f"{side}.symbol"] if f"{side}.symbol" in table else table[side]
        for text, symbol in zip(table[side], symbols, strict=True):
            # a gene is called by its symbol; names with blanks or `_` are complexes in every release of CellChatDB
            if text not in complex_genes and (" " in text or "_" in text or (symbol and SEPARATOR in symbol)):
                unknown.add(text)
    if unknown:
        found = f"{len(unknown)} names of complexes have no genes: {', '.join(sorted(unknown)[:SHOWN])}"
        problems.append(f"{found}; give CellChatDB's table of complexes as --lr_complexes")
    present = {ours: theirs for ours, theirs in CELLCHAT_COFACTORS.items() if theirs in table}
    groups = {text for theirs in present.values() for text in table[theirs] if text} - set(cofactor_genes)
    if groups:
        found = f"{len(groups)} groups of cofactors have no genes: {', '.join(sorted(groups)[:SHOWN])}"
        problems.append(f"{found}; give CellChatDB's table of cofactors as --lr_cofactors")
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems))

    def genes(column: pd.Series, members: dict[str, tuple[str, ...]], itself: bool) -> list[str]:
        return [SEPARATOR.join(members.get(text, (text,) if itself else ())) for text in column]

    made = pd.DataFrame(
        {
            "pair": table["interaction_name"],
            "pathway": table["pathway_name"],
            "annotation": table.get("annotation", ""),
            "ligand": table["ligand"],
            "receptor": table["receptor"],
            "ligand_genes": genes(table["ligand"], complex_genes, True),
            "receptor_genes": genes(table["receptor"], complex_genes, True),
            "version": table.get("version", ""),
            "licence": table.get("licence", ""),
        }
    )
    for ours in COFACTORS:
        made[ours] = genes(table[present[ours]], cofactor_genes, False) if ours in present else ""
    return made


def load(table: Path, complexes: Path | None = None, cofactors: Path | None = None, version: str = "") -> pd.DataFrame:
    """The pairs of a table in any of the three forms, checked, sorted by pair.

    Parameters
    ----------
    complexes, cofactors
        CellChatDB's other two tables; used with its interaction table only.
    version
        keep the rows whose column `version` ends with this text (`v1`); empty = all.

    Raises
    ------
    InputError
        naming the file and everything that does not fit.
    """
    frame = read_table(table)
    frame.columns = [str(column).strip() for column in frame.columns]
    if set(CELLCHAT_COLUMNS) <= set(frame):
        parts = [read_table(path) if path is not None else None for path in (complexes, cofactors)]
        made = from_cellchat(frame, *parts, name=table.name)
    else:
        extra = [option for option, path in (("--lr_complexes", complexes), ("--lr_cofactors", cofactors)) if path is not None]
        if extra:
            raise InputError(
                f"{table.name}: {' and '.join(extra)} belong to CellChatDB's interaction table (columns "
                f"{', '.join(CELLCHAT_COLUMNS)}); this table has {', '.join(frame)}"
            )
        if {"pathway", "ligand", "receptor", "source"} <= set(frame) and "pair" not in frame:
            made = name_pathways(liana_resource(), frame, table.name)
        elif set(REQUIRED) & set(frame):
            made = frame
        else:
            raise InputError(
                f"{table.name}: not a table of pairs; columns are {', '.join(frame)}. Expected {', '.join(REQUIRED)} (pairs), "
                f"{', '.join(FAMILY_COLUMNS)} (families of ligands) or {', '.join(CELLCHAT_COLUMNS)} (CellChatDB)"
            )
    made = check_table(made, table.name)
    if version:
        kept = made["version"].str.endswith(version)
        if not kept.any():
            raise InputError(
                f"{table.name}: no pair of version {version}; versions are {', '.join(sorted(set(made['version'])))}"
            )
        made = made[kept].reset_index(drop=True)
    return made
