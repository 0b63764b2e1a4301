package main

import "testing"

func TestUnifiedDiffShowsChangesAmidTheirContext(t *testing.T) {
	before := "a\nb\nc\nd\ne\nf\ng\nh\n"
	after := "a\nB\nc\nd\ne\nf\ng\nh\ni\n"
	want := "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n@@ -8 +8,2 @@\n h\n+i\n"
	if got := unified(compare(linesOf(before), linesOf(after)), 1); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDiffOfEqualTextsIsEmpty(t *testing.T) {
	if got := unified(compare(linesOf("x\ny"), linesOf("x\ny\n")), 3); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestDiffFromNothingAddsEverything(t *testing.T) {
	if got, want := unified(compare(nil, linesOf("x\ny")), 3), "@@ -0,0 +1,2 @@\n+x\n+y\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
