package ui

import (
	"strings"
	"unicode/utf8"
)

// Table is rows under a header, columns two spaces apart.
type Table struct {
	header []string
	rows   [][]Cell
}

// Cell is one text of a table with a mood.
type Cell struct {
	Text string
	Mood Mood
}

// Mood is how a text is meant; a terminal shows it as colour.
type Mood int

// The moods.
const (
	Plain Mood = iota
	Good
	Caution
	Bad
	Faint
)

var moods = map[Mood]colour{Good: green, Caution: yellow, Bad: red, Faint: grey}

// NewTable makes a table with the header.
func NewTable(header ...string) *Table { return &Table{header: header} }

// Row adds a row; each cell is a string or a Cell.
func (t *Table) Row(cells ...any) {
	row := make([]Cell, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case Cell:
			row[i] = Cell{Clean(c.Text), c.Mood}
		case string:
			row[i] = Cell{Text: Clean(c)}
		}
	}
	t.rows = append(t.rows, row)
}

// Table prints t on stdout: the header always, so that an empty list says what
// it would list.
func (c *Console) Table(t *Table) error {
	width := make([]int, len(t.header))
	for i, h := range t.header {
		width[i] = utf8.RuneCountInString(h)
	}
	for _, row := range t.rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell.Text))
		}
	}
	var b strings.Builder
	line := func(row []Cell, k colour) {
		last := len(row) - 1
		for last >= 0 && row[last].Text == "" {
			last--
		}
		for i := 0; i <= last; i++ {
			col := moods[row[i].Mood]
			if k != "" {
				col = k
			}
			b.WriteString(c.outPaint(col, row[i].Text))
			if i < last {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(row[i].Text)+2))
			}
		}
		b.WriteByte('\n')
	}
	head := make([]Cell, len(t.header))
	for i, h := range t.header {
		head[i].Text = h
	}
	line(head, bold)
	for _, row := range t.rows {
		line(row, "")
	}
	return c.write([]byte(b.String()))
}

// Fields prints a show: one "key: value" a line, values aligned. Empty values
// are left out.
func (c *Console) Fields(fields [][2]string) error {
	width := 0
	for _, f := range fields {
		if f[1] != "" {
			width = max(width, len(f[0]))
		}
	}
	var b strings.Builder
	for _, f := range fields {
		if f[1] == "" {
			continue
		}
		b.WriteString(c.outPaint(bold, f[0]+":"))
		b.WriteString(strings.Repeat(" ", width-len(f[0])+1))
		b.WriteString(Clean(f[1]))
		b.WriteByte('\n')
	}
	return c.write([]byte(b.String()))
}
