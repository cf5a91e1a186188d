// Parameters against nextflow_schema.json: help text, unknown names with the nearest right one, types, limits.
// The schema is the one description; nothing about a single parameter stands here.

import groovy.json.JsonSlurper
import java.nio.file.Path

class Parameters {

    /** Every parameter's description by name, in the schema's order. */
    static Map<String, Map> describe(Path schemaFile) {
        def schema = new JsonSlurper().parseText(schemaFile.text) as Map
        def all = [:]
        schema['$defs'].each { group, definition ->
            def required = (definition.required ?: []) as List
            definition.properties.each { name, property ->
                all[name] = property + [name: name, group: definition.title, required: name in required]
            }
        }
        return all
    }

    /** Problems of the given parameters, one sentence each; empty when all is well. */
    static List<String> problems(Map params, Path schemaFile) {
        def known = describe(schemaFile)
        def found = []
        // Nextflow adds a camelCase twin for every --kebab-case option: one message for the pair is enough.
        def twins = params.keySet().findAll { it.contains('-') }.collect { camel(it) } as Set
        params.each { name, value ->
            if (known.containsKey(name)) {
                def wrong = mismatch(known[name], value)
                if (wrong) { found << "--${name}: ${wrong}".toString() }
            }
            else if (!(name in twins)) {
                def near = nearest(name, known.keySet())
                found << "--${name}: there is no such parameter${near ? ". Did you mean --${near}?" : '; --help lists them all'}".toString()
            }
        }
        known.each { name, property ->
            if (property.required && isEmpty(params[name])) {
                found << "--${name}: required. ${property.description}".toString()
            }
        }
        return found.sort()
    }

    private static boolean isEmpty(value) { value == null || value.toString() == '' }

    private static String mismatch(Map property, value) {
        if (isEmpty(value)) { return null }
        def text = value.toString()
        switch (property.type) {
            case 'boolean':
                if (!(value instanceof Boolean) && !(text in ['true', 'false'])) { return "'${text}' given, expected true or false" }
                return null
            case 'integer':
                if (!(text ==~ /[+-]?\d+/)) { return "'${text}' given, expected a whole number" }
                return limits(property, new BigDecimal(text))
            case 'number':
                if (!(text ==~ /[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?/)) { return "'${text}' given, expected a number" }
                return limits(property, new BigDecimal(text))
            default:
                if (value instanceof Boolean) { return "no value given, expected ${property.enum ? property.enum.join(', ') : 'text'}" }
                if (property.enum && !(text in property.enum)) {
                    def near = nearest(text, property.enum as Set)
                    return "'${text}' given, expected one of ${property.enum.join(', ')}${near ? ". Did you mean ${near}?" : ''}"
                }
                if (property.pattern && !(text ==~ property.pattern)) {
                    return "'${text}' given, expected ${property.errorMessage ?: 'text that matches ' + property.pattern}"
                }
                return null
        }
    }

    private static String limits(Map property, BigDecimal value) {
        if (property.minimum != null && value < (property.minimum as BigDecimal)) { return "${value} given, the least is ${property.minimum}" }
        if (property.maximum != null && value > (property.maximum as BigDecimal)) { return "${value} given, the most is ${property.maximum}" }
        return null
    }

    private static String camel(String name) { name.replaceAll(/-(\w)/) { all, letter -> letter.toUpperCase() } }

    /** The known name nearest to a misspelt one, or null when none is near (more than a third of the letters differ, rounded up). */
    static String nearest(String name, Set<String> known) {
        def plain = { String text -> text.toLowerCase().replaceAll(/[^a-z0-9]/, '') }
        def best = known.sort(false).min { distance(plain(name), plain(it)) }
        if (best == null) { return null }
        return distance(plain(name), plain(best)) <= Math.ceil(plain(name).size() / 3) ? best : null
    }

    /** Levenshtein distance. */
    private static int distance(String a, String b) {
        int[] row = (0..b.size()) as int[]
        for (int i = 1; i <= a.size(); i++) {
            int diagonal = row[0]
            row[0] = i
            for (int j = 1; j <= b.size(); j++) {
                int above = row[j]
                row[j] = Math.min(Math.min(row[j] + 1, row[j - 1] + 1), diagonal + (a[i - 1] == b[j - 1] ? 0 : 1))
                diagonal = above
            }
        }
        return row[b.size()]
    }

    /** The text of --help: groups, parameters, types, defaults, limits. */
    static String help(Path schemaFile, String version) {
        def schema = new JsonSlurper().parseText(schemaFile.text) as Map
        def lines = ["scresist ${version}: ${schema.description}", '',
                     '  nextflow run . --input samplesheet.csv --outdir results [-profile docker|apptainer|slurm|gpu|demo]', '']
        schema['$defs'].each { group, definition ->
            lines << definition.title
            definition.properties.each { name, property ->
                def facts = [property.enum ? property.enum.join('|') : property.type]
                if (property.minimum != null || property.maximum != null) {
                    facts << "${property.minimum ?: property.minimum == 0 ? property.minimum : ''}..${property.maximum != null ? property.maximum : ''}"
                }
                if (property.default != null) { facts << "default ${property.default}" }
                if (name in (definition.required ?: [])) { facts << 'required' }
                lines << "  --${name.padRight(28)} ${property.description} [${facts.join(', ')}]"
            }
            lines << ''
        }
        return lines.join('\n')
    }
}
