package main

import (
	"fmt"
	"strings"
)

// maxLines bounds the work of one comparison, which grows with the square of the texts' length.
const maxLines = 2000

// edit is one line of a comparison: ' ' kept, '-' removed, '+' added.
type edit struct {
	kind byte
	line string
}

// compare keeps a longest common subsequence of the lines, found by dynamic programming.
func compare(before, after []string) []edit {
	// common[i][j] is the length of the longest common subsequence of before[i:] and after[j:].
	common := make([][]int32, len(before)+1)
	for i := range common {
		common[i] = make([]int32, len(after)+1)
	}
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i] == after[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var edits []edit
	i, j := 0, 0
	for i < len(before) || j < len(after) {
		switch {
		case i < len(before) && j < len(after) && before[i] == after[j]:
			edits = append(edits, edit{' ', before[i]})
			i, j = i+1, j+1
		case j == len(after) || i < len(before) && common[i+1][j] >= common[i][j+1]:
			edits = append(edits, edit{'-', before[i]})
			i++
		default:
			edits = append(edits, edit{'+', after[j]})
			j++
		}
	}
	return edits
}

// linesOf splits a text after each line break; the last line needs none.
func linesOf(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// unified writes the edits as a unified diff without file names, each change amid so many unchanged lines.
func unified(edits []edit, context int) string {
	var diff strings.Builder
	for start := 0; start < len(edits); {
		end := hunkEnd(edits, start, context)
		if end < 0 {
			break
		}
		from := max(start, firstChange(edits, start)-context)
		writeHunk(&diff, edits, from, end)
		start = end
	}
	return diff.String()
}

// hunkEnd returns where the first hunk at or after start ends, or -1 if nothing changes any more. Changes that are at
// most twice the context apart share a hunk.
func hunkEnd(edits []edit, start, context int) int {
	last := firstChange(edits, start)
	if last < 0 {
		return -1
	}
	for {
		next := firstChange(edits, last+1)
		if next < 0 || next-last > 2*context+1 {
			return min(len(edits), last+context+1)
		}
		last = next
	}
}

func firstChange(edits []edit, start int) int {
	for i := start; i < len(edits); i++ {
		if edits[i].kind != ' ' {
			return i
		}
	}
	return -1
}

func writeHunk(diff *strings.Builder, edits []edit, from, to int) {
	beforeLine, afterLine := count(edits[:from], '-'), count(edits[:from], '+')
	before, after := count(edits[from:to], '-'), count(edits[from:to], '+')
	fmt.Fprintf(diff, "@@ -%s +%s @@\n", position(beforeLine, before), position(afterLine, after))
	for _, e := range edits[from:to] {
		fmt.Fprintf(diff, "%c%s\n", e.kind, e.line)
	}
}

// position is where a hunk begins, counted from 1, and its length; an empty one names the line before it.
func position(linesAhead, length int) string {
	if length > 0 {
		linesAhead++
	}
	if length == 1 {
		return fmt.Sprint(linesAhead)
	}
	return fmt.Sprintf("%d,%d", linesAhead, length)
}

// count tells how many of the lines are in the text that has removed ('-') or added ('+') ones.
func count(edits []edit, kind byte) int {
	lines := 0
	for _, e := range edits {
		if e.kind == kind || e.kind == ' ' {
			lines++
		}
	}
	return lines
}
