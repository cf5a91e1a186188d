// Co-expression modules of the tumour cells, their scores per cell and their relation to phase and resistance.
// in:  merged.h5ad, annotation, calls of malignant cells, embedding, samples, phases, labels of clones and clusters
// out: modules.parquet (scores), modules.rankings.tsv.gz; tables of genes, sizes, traits, preservation; dendrogram

process FIND_PROGRAMS {
    tag 'cohort'
    label 'cohort'
    // besides the matrix, a few square matrices of the network's genes: 5,000 genes are 0.2 GB each
    memory { (5.GB + ("${10 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path annotation
    path tumour
    path embedding
    path samples
    path phases
    path groups, stageAs: 'groups/*'

    output:
    path 'modules.parquet', emit: modules
    path 'modules.rankings.tsv.gz', emit: rankings
    path 'modules.tsv', emit: genes
    path 'module_{traits,samples}.tsv', emit: relations
    path 'modules.parquet', topic: fragments
    path '{soft_threshold,modules,module_sizes,module_samples,module_traits,module_groups,preservation}.tsv', topic: tables
    path 'modules.rankings.tsv.gz', topic: tables
    path 'modules.dendrogram.png', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def labels = groups ? "--groups ${groups}" : ''
    """
    find_programs.py \\
        --input ${merged} \\
        --annotation ${annotation} \\
        --tumour ${tumour} \\
        --embedding ${embedding} \\
        --samples ${samples} \\
        --phases ${phases} \\
        ${labels} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch modules.parquet modules.rankings.tsv.gz modules.dendrogram.png soft_threshold.tsv modules.tsv module_sizes.tsv
    touch module_samples.tsv module_traits.tsv module_groups.tsv preservation.tsv
    touch find_programs.cohort.status.tsv find_programs.cohort.provenance.json
    """
}
