// Named genes and gene sets over the phases of therapy, per sample and cell type, and their copy number per clone.
// in:  merged.h5ad, annotation, malignant and clone fragments and clone tables of all patients, panels; contrasts, samples, phases
// out: panel_values.tsv, panel_tests.tsv, panel_trend.tsv, panel_clones.tsv

process TRACK_PANELS {
    tag 'cohort'
    label 'unit'
    memory { (4.GB + ("${6 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path annotation
    path tumour
    path clones
    path clone_tables
    path panels
    path contrasts
    path samples
    path phases

    output:
    path 'panel_values.tsv', emit: values
    path 'panel_tests.tsv', emit: tests
    path 'panel_trend.tsv', emit: trend
    path 'panel_clones.tsv', emit: clones
    path 'panel_{values,tests,trend,clones}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    track_panels.py \\
        --input ${merged} \\
        --annotation ${annotation} \\
        --tumour ${tumour} \\
        --clones ${clones} \\
        --clone_tables ${clone_tables} \\
        --panels ${panels} \\
        --contrasts ${contrasts} \\
        --samples ${samples} \\
        --phases ${phases} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch panel_values.tsv panel_tests.tsv panel_trend.tsv panel_clones.tsv
    touch track_panels.cohort.status.tsv track_panels.cohort.provenance.json
    """
}
