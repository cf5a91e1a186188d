// Joins the samples into one sparse matrix, normalised once, and picks the highly variable genes.
// in:  all filtered h5ad, sorted by sample; marker table (to say which markers the join lost)
// out: merged.h5ad, the only writer of the cohort matrix; hvg.tsv, merge.tsv

process MERGE_COHORT {
    tag 'cohort'
    label 'cohort'
    // counts, logs and the copy being written: about 12 times the compressed inputs
    memory { (4.GB + ("${12 * [samples].flatten()*.size().sum()} B" as MemoryUnit)) * task.attempt }

    input:
    path samples
    path markers

    output:
    path 'merged.h5ad', emit: h5ad
    path '{hvg,merge}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    merge_cohort.py \\
        --inputs ${samples} \\
        --markers ${markers} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch merged.h5ad hvg.tsv merge.tsv merge_cohort.cohort.status.tsv merge_cohort.cohort.provenance.json
    """
}
