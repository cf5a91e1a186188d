// The user's sheet of bulk or clinical cohorts: names looked at, files looked up. What the files hold and what the cells of
// options say is judged by CHECK_EVIDENCE.

import java.nio.file.Path

class EvidenceSheet {

    static final List<String> FILE_COLUMNS = ['clinical', 'expression']

    /**
     * Read a sheet of cohorts (the separator is the one that stands most often in the header: tab, comma or semicolon).
     *
     * Returns [[dataset: name, clinical: Path, expression: Path or an empty list], ...] in the order of the rows. Everything
     * that is wrong with columns, names and files is told at once, by row.
     */
    static List<Map> read(Path sheet) {
        def text = sheet.getText('UTF-8').replaceFirst('^\uFEFF', '')
        def header = text.readLines().find { it.trim() } ?: ''
        def separator = ['\t', ',', ';'].max { header.count(it) }
        def rows = Samplesheet.fields(text, separator, "The sheet of cohorts ${sheet.name}")
        // a line without any cell is no row; the numbers stay those of the file
        def numbered = rows.withIndex(1).findAll { row, number -> row.any { it.trim() } }
        def problems = []
        def records = []
        if (!numbered) { problems << 'no row; expected a header and a row per dataset. Write them' }
        else {
            def columns = numbered.head()[0]*.trim()
            columns.countBy { it }.findAll { name, n -> n > 1 && name }.each { name, n ->
                problems << "row 1, column ${name}: named ${n} times; expected once. Rename or remove one".toString()
            }
            ['dataset', 'clinical'].findAll { !(it in columns) }.each { name ->
                def near = Parameters.nearest(name, (columns - ['dataset', 'clinical', 'expression']).findAll { it } as Set)
                def mend = near ? "Rename ${near} to ${name}" : 'Add it'
                problems << "row 1: no column ${name} among ${columns.join(', ')}; expected dataset and clinical. ${mend}".toString()
            }
            if (numbered.size() == 1) { problems << 'no row below the header; expected a row per dataset. Write them' }
            numbered.tail().each { row, number ->
                if (row.size() != columns.size()) {
                    def hint = 'a separator inside a value needs quotes around the value'
                    problems << "row ${number}: ${row.size()} cells; expected ${columns.size()} as in the header. Check them (${hint})".toString()
                    return
                }
                records << [columns, row*.trim()].transpose().collectEntries { it } + [_row: number]
            }
        }
        def seen = [:]
        def found = problems ? [] : records.collect { record -> row(sheet, record, seen, problems) }
        if (problems) {
            throw new IllegalArgumentException(
                "The sheet of cohorts ${sheet.name} cannot be used; nothing was computed:\n" + problems.collect { "  - ${it}." }.join('\n'))
        }
        return found
    }

    /** One dataset; what is wrong with its row is added to `problems`. */
    private static Map row(Path sheet, Map record, Map seen, List problems) {
        def name = record.dataset
        def where = "row ${record._row}, column dataset: ${name ? "'" + name + "'" : 'empty'}"
        if (!(name ==~ /[A-Za-z0-9][A-Za-z0-9_.-]*/)) {
            problems << "${where}; expected a name of letters, digits, `_`, `.`, `-` that starts with a letter or digit. Rename the dataset".toString()
        }
        else if (seen.containsKey(name)) {
            problems << "${where} stands in row ${seen[name]} too; expected each dataset once. Rename or remove one".toString()
        }
        else { seen[name] = record._row }
        def files = FILE_COLUMNS.collectEntries { column ->
            def cell = record[column] ?: ''
            def at = "row ${record._row}, column ${column}"
            if (!cell) {
                if (column == 'clinical') { problems << "${at}: empty; expected the path of a table. Name the clinical table of the dataset".toString() }
                return [column, []]
            }
            def path = Samplesheet.resolve(sheet, cell)
            if (!path.exists()) {
                problems << "${at}: '${cell}'; expected a file, nothing lies there. Correct the path (relative ones begin beside the sheet)".toString()
            }
            else if (path.isDirectory()) { problems << "${at}: '${cell}' is a folder; expected a file. Name the table in it".toString() }
            return [column, path]
        }
        return [dataset: name] + files
    }
}
