// Expression states of the tumour cells: clusters in the integrated space, cell cycle, markers, where they occur.
// in:  merged.h5ad, annotation, malignant fragments of all patients, embedding, cycle genes, phases
// out: epi_clusters.parquet; epi_{clusters,composition,markers,resolutions}.tsv; rankings for enrichment; maps

process SUBCLUSTER_EPITHELIUM {
    tag 'cohort'
    label 'cohort'
    memory { (4.GB + ("${8 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path annotation
    path tumour
    path embedding
    path cell_cycle
    path phases

    output:
    path 'epi_clusters.parquet', emit: clusters
    path 'epi_clusters.rankings.tsv.gz', emit: rankings
    path 'epi_clusters.tsv', emit: table
    path 'epi_composition.tsv', emit: composition
    path 'epi_clusters.parquet', topic: fragments
    path 'epi_{clusters,composition,markers,resolutions}.tsv', topic: tables
    path '{cluster,phase,patient}.epi_map.png', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    subcluster_epithelium.py \\
        --input ${merged} \\
        --annotation ${annotation} \\
        --tumour ${tumour} \\
        --embedding ${embedding} \\
        --cell_cycle ${cell_cycle} \\
        --phases ${phases} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch epi_clusters.parquet epi_clusters.rankings.tsv.gz
    touch epi_clusters.tsv epi_composition.tsv epi_markers.tsv epi_resolutions.tsv
    touch cluster.epi_map.png phase.epi_map.png patient.epi_map.png
    touch subcluster_epithelium.cohort.status.tsv subcluster_epithelium.cohort.provenance.json
    """
}
