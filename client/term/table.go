package term

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"golang.org/x/text/width"
)

// Width is the number of columns that s takes in a table, counted as Docker's tables do: wide characters take two,
// control characters and combining ones none, and an emoji that is made of several is one.
func Width(s string) int { return runewidth.StringWidth(s) }

// runeWidth is what Ellipsis counts a rune as: as Docker's, it knows wide characters alone.
func runeWidth(r rune) int {
	if r < utf8.RuneSelf {
		return 1
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	default:
		return 1
	}
}

// Ellipsis shortens s to at most cols columns, the last of which is then "…".
func Ellipsis(s string, cols int) string {
	if cols <= 0 {
		return ""
	}
	all := 0
	for _, r := range s {
		all += runeWidth(r)
	}
	if all <= cols {
		return s
	}
	if cols == 1 {
		_, size := utf8.DecodeRuneInString(s)
		return s[:size]
	}
	used := 0
	for i, r := range s {
		if used += runeWidth(r); used > cols-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// Table lines up tab-separated cells. Columns are as wide as their widest cell
// and padding more, and at least minWidth; a column reaches only over the
// neighbouring lines that have it, as in text/tabwriter, and text after a line's
// last tab takes no part in it.
type Table struct {
	w                 io.Writer
	minWidth, padding int
	buf               bytes.Buffer
}

// NewTable returns a table that is written to w by Flush.
func NewTable(w io.Writer, minWidth, padding int) *Table {
	return &Table{w: w, minWidth: minWidth, padding: padding}
}

// Write adds text: cells end with a tab, lines with a newline.
func (t *Table) Write(p []byte) (int, error) { return t.buf.Write(p) }

// Flush writes everything added so far.
func (t *Table) Flush() error {
	text := t.buf.String()
	t.buf.Reset()
	if text == "" {
		return nil
	}
	trailing := strings.HasSuffix(text, "\n")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	cells := make([][]string, len(lines))
	for i, l := range lines {
		cells[i] = strings.Split(l, "\t")
	}
	widths := t.columnWidths(cells)

	var out bytes.Buffer
	for i, row := range cells {
		for j, cell := range row {
			out.WriteString(cell)
			if j < len(row)-1 {
				for n := widths[i][j] - Width(cell); n > 0; n-- {
					out.WriteByte(' ')
				}
			}
		}
		if i < len(cells)-1 || trailing {
			out.WriteByte('\n')
		}
	}
	_, err := t.w.Write(out.Bytes())
	return err
}

// columnWidths gives every cell that ends with a tab the width of its column: the
// block of neighbouring lines that have such a cell at this place.
func (t *Table) columnWidths(cells [][]string) [][]int {
	widths := make([][]int, len(cells))
	for i, row := range cells {
		widths[i] = make([]int, max(len(row)-1, 0))
	}
	for i := range cells {
		for j := range widths[i] {
			if widths[i][j] != 0 {
				continue
			}
			most, end := 0, i
			for ; end < len(cells) && j < len(widths[end]); end++ {
				most = max(most, Width(cells[end][j]))
			}
			w := max(most+t.padding, t.minWidth, 1)
			for k := i; k < end; k++ {
				widths[k][j] = w
			}
		}
	}
	return widths
}
