// Copy-number profile of each cell of one patient, all phases together, against the patient's own normal cells.
// in:  patient, merged.h5ad, annotation.parquet; chromosome arms, panel genes
// out: [patient, profiles, scores]; scores per cell; arms by sample and type, reference groups

process INFER_CNV {
    tag "${patient}"
    label 'unit'
    memory { (2.GB + ("${5 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    tuple val(patient), path(merged), path(annotation)
    path arms
    path panels

    output:
    tuple val(patient), path("${patient}.cnv.h5ad"), path("${patient}.cnv.parquet"), emit: profiles
    path "${patient}.cnv.parquet", emit: scores
    path "${patient}.cnv.parquet", topic: fragments
    path "${patient}.{cnv_arms,cnv_reference}.tsv", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    infer_cnv.py \\
        --patient ${patient} \\
        --input ${merged} \\
        --annotation ${annotation} \\
        --arms ${arms} \\
        --panels ${panels} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${patient}.cnv.h5ad ${patient}.cnv.parquet ${patient}.cnv_arms.tsv ${patient}.cnv_reference.tsv \\
        infer_cnv.${patient}.status.tsv infer_cnv.${patient}.provenance.json
    """
}
