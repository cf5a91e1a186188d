// One page that a clinician and a reviewer can read, made with MultiQC; ends in an error when a promised result is missing.
// in:  all tables, status rows and provenance of the run; cells.parquet; MultiQC configuration and texts
// out: report.html, status.tsv, findings.tsv, software_versions.tsv, methods.md
// reads the topics that the other steps write, so it writes to none of them

process BUILD_REPORT {
    tag 'cohort'
    memory { 4.GB * task.attempt }

    input:
    path tables, stageAs: 'tables/*'
    path status, stageAs: 'status/*'
    path provenance, stageAs: 'provenance/*'
    path cells
    path assets, stageAs: 'assets/*'

    output:
    path 'report.html', emit: report
    path '{status,findings,software_versions}.tsv', emit: tables
    path 'methods.md', emit: methods

    script:
    """
    build_report.py \\
        --tables tables \\
        --status status/* \\
        --provenance provenance/* \\
        --cells ${cells} \\
        --assets assets \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch report.html status.tsv findings.tsv software_versions.tsv methods.md
    """
}
