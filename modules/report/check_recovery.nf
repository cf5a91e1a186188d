// Compares what the run found with what was planted.
// in:  cells.parquet of the run, the truth folder, every table of the run
// out: recovery.tsv, one row per planted thing, with floor and verdict
// runs after ASSEMBLE_COHORT, which waits for the topics: it must not write to them

process CHECK_RECOVERY {
    tag 'cohort'
    label 'light'

    input:
    path cells
    path truth
    path tables, stageAs: 'tables/*'

    output:
    path 'recovery.tsv', emit: table
    path '*.provenance.json', emit: provenance
    path '*.status.tsv', emit: status

    script:
    """
    check_recovery.py \\
        --cells ${cells} \\
        --truth ${truth} \\
        --tables tables \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch recovery.tsv check_recovery.cohort.status.tsv check_recovery.cohort.provenance.json
    """
}
