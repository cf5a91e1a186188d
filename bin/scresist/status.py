"""Status rows: what each step did for each unit (sample, patient, contrast, cohort), or why it did not.

Every process writes at least one row; together they become status.tsv and the first page of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from scresist import io, keys

# One sentence per word, for a reader who knows no bioinformatics. A test holds words and sentences together.
SENTENCES = {
    keys.OK: "Done.",
    keys.WARNING: "Done; read the reason before using the result.",
    keys.SKIPPED_TOO_FEW_CELLS: "Not done: too few cells for this step to mean anything.",
    keys.SKIPPED_NO_INPUT: "Not done: no input was given for this step.",
    keys.SKIPPED_BY_PARAMETER: "Not done: switched off by a parameter.",
    keys.SKIPPED_SAMPLE_CRITERIA: "Left out of the cohort: the sample fails the quality criteria (--on_sample_fail drop).",
    keys.SKIPPED_INSUFFICIENT_REFERENCE: "Not done: too few normal cells of the patient to compare with.",
    keys.SKIPPED_FEW_GENES: "Not done: too few of the genes that this step needs were measured.",
    keys.SKIPPED_ONE_BATCH: "Not needed: there is only one batch to integrate.",
    keys.NO_REPLICATES: "Effect sizes only: a test needs at least two patients on each side.",
    keys.NOT_ESTIMABLE: "The quantity does not exist for these data; it is left empty, not zero.",
    keys.CNV_QUIET: "No copy-number change was found: the cells may be normal or of a tumour without such changes.",
    keys.NO_TERMINAL_STATE: "The cells show no end point: no state that cells enter and do not leave.",
    keys.OUT_OF_RANGE: "The quantity lies beyond the tested range: a limit is given, no number.",
    keys.FAILED_NO_CELLS: "No cell is left although there should be some: look at this sample.",
    keys.FAILED_UNFILTERED: "The matrix holds mostly empty droplets: give the filtered matrix.",
    keys.FAILED_NAN_LOSS: "The model did not fit: its loss became undefined.",
}
WORDS = tuple(SENTENCES)
UNIT_TYPES = ("cohort", "sample", "patient", "contrast", "type", "marker", "dataset")


def few(names: Sequence[str], most: int = 6) -> str:
    """The first names of a reason, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class StatusRow:
    """One row of status.tsv; counts are None where they have no meaning for the unit."""

    step: str
    unit_type: str
    unit: str
    status: str
    reason: str = ""
    n_cells: int | None = None
    n_samples: int | None = None
    n_patients: int | None = None
    sentence: str = ""

    def __post_init__(self) -> None:
        if self.status not in SENTENCES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(WORDS)}")
        if self.unit_type not in UNIT_TYPES:
            raise ValueError(f"unit_type {self.unit_type!r} is not one of {', '.join(UNIT_TYPES)}")
        if self.status != keys.OK and not self.reason:
            raise ValueError(f"status {self.status} of {self.step}/{self.unit} needs a reason: what was found, what was needed")
        if not self.sentence:
            object.__setattr__(self, "sentence", SENTENCES[self.status])


COLUMNS = tuple(field.name for field in fields(StatusRow))


def table(rows: list[StatusRow]) -> pd.DataFrame:
    """Rows as a data frame sorted by step, unit_type, unit; counts as nullable integers."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS))
    for column in ("n_cells", "n_samples", "n_patients"):
        frame[column] = frame[column].astype("Int64")
    return frame.sort_values(["step", "unit_type", "unit"], kind="stable", ignore_index=True)


def write(rows: list[StatusRow], step: str, unit: str, folder: Path = Path()) -> Path:
    """Write `<step>.<unit>.status.tsv` and return its path."""
    path = Path(folder) / f"{step}.{unit}.status.tsv"
    io.write_tsv(table(rows), path)
    return path
