// SAMPLE: each sample by itself, from any count matrix to filtered cells; a poor sample ends in a status, not in an error.

include { LOAD_SAMPLE     } from './load_sample'
include { CORRECT_AMBIENT } from './correct_ambient'
include { FLAG_CELLS      } from './flag_cells'
include { DETECT_DOUBLETS } from './detect_doublets'
include { FILTER_CELLS    } from './filter_cells'

workflow SAMPLE {
    take:
    samples   // [meta, settings, files]
    positions // path: gene positions
    aliases   // path: older gene symbols
    markers   // path: marker table
    ambient   // 'none' or 'scar'

    main:
    LOAD_SAMPLE(samples.map { meta, _settings, files -> [meta, files.path, files.state] }, positions, aliases)

    // [meta, h5ad, raw matrix or null]
    loaded = LOAD_SAMPLE.out.h5ad
        .join(samples.map { meta, _settings, files -> [meta, files.raw_path] })
        .branch { _meta, _h5ad, raw ->
            ambient: ambient == 'scar' && raw != null
            plain: true
        }
    CORRECT_AMBIENT(loaded.ambient)
    h5ad = loaded.plain.map { meta, h5ad, _raw -> [meta, h5ad] }.mix(CORRECT_AMBIENT.out.h5ad)

    settings = samples.map { meta, settings, _files -> [meta, settings] }
    // only the thresholds that a step uses: a new doublet rate does not flag the cells again
    FLAG_CELLS(settings.map { meta, all -> [meta, all.findAll { name, _value -> name != 'expected_doublet_rate' }] }.join(h5ad))
    DETECT_DOUBLETS(settings.map { meta, all -> [meta, all.subMap(['expected_doublet_rate'])] }.join(h5ad).join(FLAG_CELLS.out.flags), markers)
    FILTER_CELLS(h5ad.join(FLAG_CELLS.out.flags).join(DETECT_DOUBLETS.out.doublets).join(FLAG_CELLS.out.table))

    emit:
    h5ad = FILTER_CELLS.out.h5ad    // [meta, filtered h5ad; 0 cells where the sample is skipped]
    cells = FILTER_CELLS.out.cells  // [meta, all cells with flags and reasons]
}
