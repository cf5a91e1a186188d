// Reads an annotated object in place of samples, whoever made it: the cohort with its types taken as given.
// in:  annotated h5ad, gene positions, aliases, marker table, label map
// out: what the other steps of COHORT make (merged.h5ad, annotation, clusters, embedding), all cells as FILTER_CELLS lists them,
//      the samples as lib/Samplesheet.groovy lists them; types.tsv, marker_check.tsv, load_annotated.tsv

process LOAD_ANNOTATED {
    tag 'cohort'
    label 'cohort'
    // the user's own file by name, size and time: reading gigabytes at every -resume would cost more than it saves
    cache true
    // every slot of the object is looked at, then counts and logs are written: about 9 times a compressed object was seen
    memory { (4.GB + ("${12 * annotated.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path annotated, stageAs: 'annotated/*'
    path positions
    path aliases
    path markers, stageAs: 'table/*'
    path label_map

    output:
    path 'merged.h5ad', emit: h5ad
    path 'annotation.parquet', emit: annotation
    path 'clusters.parquet', emit: clusters
    path 'embedding.parquet', emit: embedding
    path 'cohort.cells.parquet', emit: cells
    path 'samplesheet.tsv', emit: sheet
    path '{annotation,clusters,embedding}.parquet', topic: fragments
    path '{types,marker_check,load_annotated}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    load_annotated.py \\
        --input ${annotated} \\
        --positions ${positions} \\
        --aliases ${aliases} \\
        --markers ${markers} \\
        --label_map ${label_map} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    // a real table of samples: CHECK_DESIGN, which a stub run calls in earnest, reads it
    """
    printf '_row\\t_path_found\\tpath\\tpatient\\tphase\\tsample\\n000002\\tfile\\tcohort.h5ad:A1\\tA\\tPRE\\tA1\\n' > samplesheet.tsv
    touch merged.h5ad annotation.parquet clusters.parquet embedding.parquet cohort.cells.parquet
    touch types.tsv marker_check.tsv load_annotated.tsv load_annotated.cohort.status.tsv load_annotated.cohort.provenance.json
    """
}
