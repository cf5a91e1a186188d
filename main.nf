#!/usr/bin/env nextflow

// scresist: why does this tumour resist? Parameters -> design -> samples -> cohort -> tumour -> microenvironment -> evidence -> report.

include { SIMULATE         } from './modules/simulate'
include { DESIGN           } from './modules/design'
include { SAMPLE           } from './modules/sample'
include { COHORT           } from './modules/cohort'
include { TUMOUR           } from './modules/tumour'
include { MICROENVIRONMENT } from './modules/microenvironment'
include { EVIDENCE         } from './modules/evidence'
include { REPORT           } from './modules/report'

// A file parameter, or the bundled default.
def given(value, bundled) {
    return file(value ?: "${projectDir}/assets/${bundled}", checkIfExists: true)
}

// An optional file parameter: an empty list is Nextflow's word for no file.
def optional(value) {
    return value ? file(value, checkIfExists: true) : []
}

// Paths of a comma list, in their order.
def listed(value) {
    return value ? value.tokenize(',').collect { path -> file(path.trim(), checkIfExists: true) } : []
}

workflow {
    def schema = file("${projectDir}/nextflow_schema.json")
    if (params.help) {
        println(Parameters.help(schema, workflow.manifest.version))
        exit(0)
    }
    def problems = Parameters.problems(params, schema)
    if (params.from_annotated && (params.input || params.demo)) {
        problems << "--from_annotated: takes the place of ${params.demo ? '-profile demo' : '--input'}; give one of them"
    }
    if (!params.demo && !params.input && !params.from_annotated) {
        problems << '--input: required: the samplesheet (or --from_annotated with an annotated object, or -profile demo for a simulated cohort)'
    }
    if (problems) {
        error("${problems.size()} problem(s) with the parameters; nothing was run:\n" + problems.collect { text -> "  - ${text}" }.join('\n'))
    }

    def positions = given(params.gene_positions, 'gene_positions.tsv.gz')
    def markers = given(params.markers, 'markers.tsv')
    def label_map = given(params.label_map, 'label_map.tsv')
    def models = listed(params.celltypist_models)
    def tumour_tables = [
        arms: given(params.arms, 'arms.tsv'),
        panels: given(params.panels, 'panels.tsv'),
        cell_cycle: given(params.cell_cycle, 'cell_cycle.tsv'),
        gene_sets: (params.skip_go ? [] : [given(null, 'go_bp.gmt.gz')]) + listed(params.gene_sets),
        networks: [given(null, 'progeny.tsv.gz')] + listed(params.networks),
    ]
    def signal_tables = [
        lr_table: given(params.lr_table, 'lr_pathways.tsv'),
        lr_complexes: optional(params.lr_complexes),
        lr_cofactors: optional(params.lr_cofactors),
        tcell_states: given(params.tcell_states, 'tcell_states.tsv'),
    ]
    def report_texts = ['citations.tsv', 'methods_text.yml', 'multiqc_config.yml', 'report.css'].collect { name -> given(null, name) }
    // --phases is a table when such a file exists, else an ordered list (conf/modules.config passes the list on)
    def phase_table = params.phases && !params.phases.contains(',') && file(params.phases).exists() ? file(params.phases) : given(null, 'phases.tsv')

    def aliases = given(null, 'gene_aliases.tsv.gz')
    def truth = channel.empty()
    def evidence = channel.empty() // files of the simulated studies beside the cells
    def cells = channel.empty()
    if (params.from_annotated) {
        // the object stands in for samples and cohort, and the samples behind its cells are read from it
        COHORT(channel.empty(), channel.of(file(params.from_annotated, checkIfExists: true)), positions, aliases, markers, label_map, models)
        DESIGN(channel.empty(), COHORT.out.sheet, phase_table, optional(params.contrasts))
        cells = COHORT.out.cells
    }
    else {
        def sheet = channel.empty()
        if (params.demo) {
            SIMULATE(positions, markers, tumour_tables.arms, tumour_tables.cell_cycle, optional(params.demo_design))
            sheet = SIMULATE.out.sheet
            truth = SIMULATE.out.truth
            evidence = SIMULATE.out.evidence
        }
        else {
            sheet = channel.of(file(params.input, checkIfExists: true))
        }
        DESIGN(sheet, channel.empty(), phase_table, optional(params.contrasts))
        SAMPLE(DESIGN.out.samples, positions, aliases, markers, params.ambient)
        COHORT(SAMPLE.out.h5ad, channel.empty(), positions, aliases, markers, label_map, models)
        cells = SAMPLE.out.cells
    }
    def cohort = [merged: COHORT.out.merged, annotation: COHORT.out.annotation, embedding: COHORT.out.embedding, clusters: COHORT.out.clusters]
    def design = [samples: DESIGN.out.sample_table, phases: DESIGN.out.phases, contrasts: DESIGN.out.contrasts]
    // without the tumour stage there are no clones to count and no tumour cells to follow
    def tumour = [
        labels: [], calls: channel.empty(), states: channel.empty(), modules: channel.empty(),
        genes: [], panel_tests: [], weighed: channel.empty(), malignant: [], clones: [],
    ]
    if (!params.skip_tumour) {
        TUMOUR(cohort, design, tumour_tables, params.stratify_markers.tokenize(','))
        def made = TUMOUR.out
        tumour = [
            labels: made.labels, calls: made.calls, states: made.states, modules: made.modules, genes: made.genes,
            panel_tests: made.panel_tests, weighed: made.weighed, malignant: made.malignant, clones: made.clones,
        ]
    }
    def signals = channel.empty()
    if (!params.skip_microenvironment) {
        MICROENVIRONMENT(cohort, design, signal_tables, tumour)
        signals = MICROENVIRONMENT.out.weighed
    }
    // the user's tables, or in the demo the simulated ones
    def sheet = params.survival ? channel.of(file(params.survival, checkIfExists: true)) : evidence.map { folder -> folder.resolve('survival.csv') }
    def studies = [
        sheet: sheet,
        signatures: listed(params.survival_signatures),
        plates: params.dose_response ? channel.of(listed(params.dose_response)) : evidence.map { folder -> [folder.resolve('plates.tsv')] },
        fields: params.staining_tables ? channel.of(listed(params.staining_tables)) : evidence.map { folder -> [folder.resolve('staining.tsv')] },
        rules: given(params.route_rules, 'route_rules.tsv'),
        targets: given(params.targets, 'targets.tsv'),
    ]
    EVIDENCE(cohort, design, tumour, signals, studies, !params.skip_tumour && !params.skip_routes)
    REPORT(COHORT.out.merged, cells, truth, report_texts)

    def run = workflow // inside the handler the name means something else
    def given_params = params
    workflow.onComplete {
        RunRecord.write(run, given_params, schema)
        if (run.success) {
            log.info("Report: ${given_params.outdir}/report/report.html")
        }
    }
}
