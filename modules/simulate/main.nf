// SIMULATE: a cohort with planted truth in place of a user's samplesheet.

include { SIMULATE_COHORT } from './simulate_cohort'

workflow SIMULATE {
    take:
    positions // path: gene positions
    markers   // path: marker table
    arms      // path: chromosome arms
    design    // path of a table of samples, or an empty list

    main:
    SIMULATE_COHORT(positions, markers, arms, design)
    sheet = SIMULATE_COHORT.out.cohort.map { cohort -> cohort.resolve('samplesheet.csv') }

    emit:
    sheet                              // path: cohort/samplesheet.csv, its paths beside it
    truth = SIMULATE_COHORT.out.truth  // path: truth/
}
