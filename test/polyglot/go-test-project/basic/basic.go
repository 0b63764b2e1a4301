// Package basic has tests that go well, wrong and not at all.
package basic

// Add adds small numbers.
func Add(a, b int) int {
	if a > 100 {
		return 0
	}
	return a + b
}
