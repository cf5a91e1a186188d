// States of T and NK cells (exhaustion, cytotoxic, naive, regulatory) per cell, sample and phase, compared between patients.
// in:  merged.h5ad, annotation, samples, phases, contrasts, signatures
// out: tcells.parquet; tcell_values.tsv, tcell_tests.tsv

process SCORE_TCELLS {
    tag 'cohort'
    label 'unit'
    memory { (3.GB + ("${4 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path annotation
    path samples
    path phases
    path contrasts
    path states

    output:
    path 'tcells.parquet', emit: scores
    path 'tcells.parquet', topic: fragments
    path 'tcell_{values,tests}.tsv', emit: values
    path 'tcell_{values,tests}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    score_tcells.py \\
        --input ${merged} \\
        --annotation ${annotation} \\
        --samples ${samples} \\
        --phases ${phases} \\
        --contrasts ${contrasts} \\
        --states ${states} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch tcells.parquet tcell_values.tsv tcell_tests.tsv
    touch score_tcells.cohort.status.tsv score_tcells.cohort.provenance.json
    """
}
