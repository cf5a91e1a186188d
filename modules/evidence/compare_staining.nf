// Stained fields over the phases: per sample, tested between patients or over the fields of one patient, against transcripts.
// in:  long tables of fields (any number, none included), phases, samples, panel_tests.tsv of TRACK_PANELS (or none)
// out: staining_values.tsv, staining_tests.tsv, staining_concordance.tsv, <marker>.staining.png

process COMPARE_STAINING {
    tag 'cohort'
    label 'unit'
    memory { 2.GB * task.attempt }

    input:
    path tables, stageAs: 'tables*/*' // two tables of one name do not meet
    path phases
    path samples
    path panel_tests

    output:
    path 'staining_tests.tsv', emit: tests
    path 'staining_concordance.tsv', emit: concordance
    path '{staining_values.tsv,staining_tests.tsv,staining_concordance.tsv,*.staining.png}', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    compare_staining.py \\
        --tables ${tables} \\
        --phases ${phases} \\
        --samples ${samples} \\
        --panel_tests ${panel_tests} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch staining_values.tsv staining_tests.tsv staining_concordance.tsv marker.staining.png
    touch compare_staining.cohort.status.tsv compare_staining.cohort.provenance.json
    """
}
