// Joins everything known about each cell, by its name and never by its place, into the delivered objects.
// in:  merged.h5ad; all cells of all samples; fragments of the later steps; status rows
// out: cohort.h5ad; cells.parquet, one row per input cell; columns.tsv, what each column means

process ASSEMBLE_COHORT {
    tag 'cohort'
    label 'cohort'
    // the matrix is held once and written once
    memory { (4.GB + ("${10 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path cells
    path fragments
    path status, stageAs: 'status/*'

    output:
    path 'cohort.h5ad', emit: h5ad
    path 'cells.parquet', emit: cells
    path 'columns.tsv', emit: columns
    path '*.provenance.json', emit: provenance
    path '*.status.tsv', emit: status

    script:
    """
    assemble_cohort.py \\
        --input ${merged} \\
        --cells ${cells} \\
        --fragments ${fragments} \\
        --status status/* \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch cohort.h5ad cells.parquet columns.tsv assemble_cohort.cohort.status.tsv assemble_cohort.cohort.provenance.json
    """
}
