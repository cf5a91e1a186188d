// Finds a space in which cells group by type and not by sample; used for clusters, labels and pictures only.
// in:  merged.h5ad, marker table (provisional lineages for the quality measures)
// out: embedding.parquet, graph.npz (bbknn; else empty), integration_quality.tsv (before and after), training.tsv
// one batch: skipped_one_batch, principal components are passed on

process INTEGRATE_COHORT {
    tag 'cohort'
    label 'cohort'
    label 'accelerated'
    memory { (4.GB + ("${8 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path markers

    output:
    path 'embedding.parquet', emit: embedding
    path 'embedding.parquet', topic: fragments
    path 'graph.npz', emit: graph
    path '{integration_quality,training}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    integrate_cohort.py \\
        --input ${merged} \\
        --markers ${markers} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch embedding.parquet graph.npz integration_quality.tsv training.tsv integrate_cohort.cohort.status.tsv integrate_cohort.cohort.provenance.json
    """
}
