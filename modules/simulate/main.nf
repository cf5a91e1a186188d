// SIMULATE: a cohort with planted truth in place of a user's samplesheet.

include { SIMULATE_COHORT } from './simulate_cohort'

workflow SIMULATE {
    take:
    positions // path: gene positions
    markers   // path: marker table
    arms      // path: chromosome arms
    cell_cycle // path: genes of the cell cycle
    design    // path of a table of samples, or an empty list

    main:
    SIMULATE_COHORT(positions, markers, arms, cell_cycle, design)
    sheet = SIMULATE_COHORT.out.cohort.map { cohort -> cohort.resolve('samplesheet.csv') }

    emit:
    sheet                              // path: cohort/samplesheet.csv, its paths beside it
    truth = SIMULATE_COHORT.out.truth  // path: truth/
    evidence = SIMULATE_COHORT.out.evidence // path: evidence/
}
