// COHORT: all samples together, from one merged matrix to labelled cells.

include { MERGE_COHORT     } from './merge_cohort'
include { INTEGRATE_COHORT } from './integrate_cohort'
include { CLUSTER_COHORT   } from './cluster_cohort'
include { ANNOTATE_CELLS   } from './annotate_cells'

workflow COHORT {
    take:
    samples   // [meta, filtered h5ad]
    markers   // path: marker table
    label_map // path: labels of models to types
    models    // list of paths: CellTypist models, may be empty

    main:
    // sorted by id: the order in which samples finish must not change a hash
    h5ads = samples.toSortedList { a, b -> a[0].id <=> b[0].id }.map { list -> list.collect { _meta, h5ad -> h5ad } }
    MERGE_COHORT(h5ads, markers)
    INTEGRATE_COHORT(MERGE_COHORT.out.h5ad, markers)
    CLUSTER_COHORT(MERGE_COHORT.out.h5ad, INTEGRATE_COHORT.out.embedding, INTEGRATE_COHORT.out.graph)
    ANNOTATE_CELLS(MERGE_COHORT.out.h5ad, CLUSTER_COHORT.out.clusters, markers, label_map, models)

    emit:
    merged = MERGE_COHORT.out.h5ad               // path: merged.h5ad
    annotation = ANNOTATE_CELLS.out.annotation   // path: annotation.parquet
}
