// Dose-response curves with their IC50 or the reason why there is none, and tests between treatments and between lines.
// in:  long tables of wells (any number, none included)
// out: dose_fits.tsv, dose_points.tsv, dose_tests.tsv, <compound>.dose_response.png

process FIT_DOSE_RESPONSE {
    tag 'cohort'
    label 'cohort'
    memory { 2.GB * task.attempt }

    input:
    path tables, stageAs: 'tables*/*' // two tables of one name do not meet

    output:
    path 'dose_fits.tsv', emit: fits
    path 'dose_tests.tsv', emit: tests
    path '{dose_fits.tsv,dose_points.tsv,dose_tests.tsv,*.dose_response.png}', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    fit_dose_response.py \\
        --tables ${tables} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch dose_fits.tsv dose_points.tsv dose_tests.tsv compound.dose_response.png
    touch fit_dose_response.cohort.status.tsv fit_dose_response.cohort.provenance.json
    """
}
