// Shares of cell types per sample, compared between patients, and the diversity of samples.
// in:  annotation, samples, phases, contrasts; clusters of tumour cells and clones of all patients (may be none)
// out: proportions.tsv, composition_tests.tsv, diversity.tsv, beta_diversity.tsv

process TEST_COMPOSITION {
    tag 'cohort'
    label 'unit'
    memory { (2.GB + ("${20 * annotation.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path annotation
    path samples
    path phases
    path contrasts
    path labels

    output:
    path 'proportions.tsv', emit: proportions
    path 'composition_tests.tsv', emit: tests
    path '{proportions,composition_tests,diversity,beta_diversity}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def given = labels ? "--labels ${labels}" : ''
    """
    test_composition.py \\
        --annotation ${annotation} \\
        --samples ${samples} \\
        --phases ${phases} \\
        --contrasts ${contrasts} \\
        ${given} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch proportions.tsv composition_tests.tsv diversity.tsv beta_diversity.tsv
    touch test_composition.cohort.status.tsv test_composition.cohort.provenance.json
    """
}
