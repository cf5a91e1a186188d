// Activity of pathways and transcription factors per sample and cell type, compared between the sides of each contrast.
// in:  merged.h5ad, annotation, tumour cells of all patients (may be none), contrasts, samples, networks
// out: activity.tsv, activity_tests.tsv

process SCORE_ACTIVITY {
    tag 'cohort'
    label 'unit'
    memory { (3.GB + ("${8 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path annotation
    path malignant
    path contrasts
    path samples
    path networks

    output:
    path '{activity,activity_tests}.tsv', emit: activity
    path '{activity,activity_tests}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def tumour = malignant ? "--tumour ${malignant}" : ''
    """
    score_activity.py \\
        --input ${merged} \\
        --annotation ${annotation} \\
        ${tumour} \\
        --contrasts ${contrasts} \\
        --samples ${samples} \\
        --networks ${networks} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch activity.tsv activity_tests.tsv score_activity.cohort.status.tsv score_activity.cohort.provenance.json
    """
}
