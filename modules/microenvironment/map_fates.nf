// Which early tumour cells of a patient resemble the later ones: couplings between phases, terminal states, fates, a null.
// in:  patient with merged.h5ad, cell types, tumour cells and clones; integrated space; states; modules or none; samples; phases
// out: <patient>.fates.parquet; tables of couplings, macrostates, tests, driver genes; a picture
// A patient with fewer than two phases on the time axis ends within seconds, with empty files.

process MAP_FATES {
    tag "${patient}"
    label 'unit'
    memory { (4.GB + ("${3 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    tuple val(patient), path(merged), path(annotation), path(malignant), path(clones)
    path embedding
    path epi_clusters
    path modules
    path samples
    path phases

    output:
    tuple val(patient), path("${patient}.fates.parquet"), emit: fates
    path "${patient}.fates.parquet", topic: fragments
    path "${patient}.{couplings,macrostates,fate_tests,fate_drivers}.tsv", topic: tables
    path "${patient}.fates.png", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def scores = modules ? "--modules ${modules}" : ''
    """
    map_fates.py \\
        --patient ${patient} \\
        --input ${merged} \\
        --annotation ${annotation} \\
        --malignant ${malignant} \\
        --clones ${clones} \\
        --embedding ${embedding} \\
        --epi_clusters ${epi_clusters} \\
        ${scores} \\
        --samples ${samples} \\
        --phases ${phases} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${patient}.fates.parquet ${patient}.couplings.tsv ${patient}.macrostates.tsv ${patient}.fate_tests.tsv
    touch ${patient}.fate_drivers.tsv ${patient}.fates.png
    touch map_fates.${patient}.status.tsv map_fates.${patient}.provenance.json
    """
}
