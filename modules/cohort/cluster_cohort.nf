// Neighbour graph, UMAP and Leiden clusters of all cells at several resolutions, with their stability.
// in:  merged.h5ad, embedding, graph
// out: clusters.parquet; clusters.tsv, markers.tsv

process CLUSTER_COHORT {
    tag 'cohort'
    label 'cohort'
    memory { (4.GB + ("${8 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path embedding
    path graph

    output:
    path 'clusters.parquet', emit: clusters
    path 'clusters.parquet', topic: fragments
    path '{clusters,markers}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    cluster_cohort.py \\
        --input ${merged} \\
        --embedding ${embedding} \\
        --graph ${graph} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch clusters.parquet clusters.tsv markers.tsv cluster_cohort.cohort.status.tsv cluster_cohort.cohort.provenance.json
    """
}
