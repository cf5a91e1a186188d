// Malignant, non-malignant or unresolved: the call of each epithelial cell of one patient.
// in:  [patient, profiles, scores] of INFER_CNV
// out: [patient, calls per cell]; numbers by sample, clusters of profiles, how the call moves with its thresholds

process CALL_MALIGNANT {
    tag "${patient}"
    label 'unit'
    memory { (3.GB + ("${6 * profiles.size()} B" as MemoryUnit)) * task.attempt }

    input:
    tuple val(patient), path(profiles), path(scores)

    output:
    tuple val(patient), path("${patient}.malignant.parquet"), emit: calls
    path "${patient}.malignant.parquet", topic: fragments
    path "${patient}.{malignant,malignant_clusters,malignant_sensitivity}.tsv", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    call_malignant.py \\
        --patient ${patient} \\
        --input ${profiles} \\
        --scores ${scores} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${patient}.malignant.parquet ${patient}.malignant.tsv ${patient}.malignant_clusters.tsv \\
        ${patient}.malignant_sensitivity.tsv call_malignant.${patient}.status.tsv call_malignant.${patient}.provenance.json
    """
}
