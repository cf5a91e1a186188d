// COHORT: all samples together, from one merged matrix to labelled cells; or an annotated object in their place.

include { MERGE_COHORT     } from './merge_cohort'
include { INTEGRATE_COHORT } from './integrate_cohort'
include { CLUSTER_COHORT   } from './cluster_cohort'
include { ANNOTATE_CELLS   } from './annotate_cells'
include { LOAD_ANNOTATED   } from './load_annotated'

workflow COHORT {
    take:
    samples   // [meta, filtered h5ad]; an empty channel with an annotated object
    annotated // path: annotated object; an empty channel with samples
    positions // path: gene positions
    aliases   // path: older gene symbols
    markers   // path: marker table
    label_map // path: labels of models to types
    models    // list of paths: CellTypist models, may be empty

    main:
    // sorted by id: the order in which samples finish must not change a hash; without samples there is nothing to merge
    h5ads = samples
        .toSortedList { a, b -> a[0].id <=> b[0].id }
        .flatMap { list -> list ? [list.collect { _meta, h5ad -> h5ad }] : [] }
    MERGE_COHORT(h5ads, markers)
    INTEGRATE_COHORT(MERGE_COHORT.out.h5ad, markers)
    CLUSTER_COHORT(MERGE_COHORT.out.h5ad, INTEGRATE_COHORT.out.embedding, INTEGRATE_COHORT.out.graph)
    ANNOTATE_CELLS(MERGE_COHORT.out.h5ad, CLUSTER_COHORT.out.clusters, markers, label_map, models)
    LOAD_ANNOTATED(annotated, positions, aliases, markers, label_map)

    emit:
    // one of each pair has run; value channels, which any number of later tasks reads
    merged = MERGE_COHORT.out.h5ad.mix(LOAD_ANNOTATED.out.h5ad).first()                   // path: merged.h5ad
    annotation = ANNOTATE_CELLS.out.annotation.mix(LOAD_ANNOTATED.out.annotation).first() // path: annotation.parquet
    embedding = INTEGRATE_COHORT.out.embedding.mix(LOAD_ANNOTATED.out.embedding).first()  // path: embedding.parquet
    clusters = CLUSTER_COHORT.out.clusters.mix(LOAD_ANNOTATED.out.clusters).first()       // path: clusters.parquet
    sheet = LOAD_ANNOTATED.out.sheet                                                      // path: canonical table of samples; only with an object
    cells = LOAD_ANNOTATED.out.cells.map { file -> [[id: 'cohort'], file] }               // [meta, all cells], as SAMPLE gives them
}
