package panics

import "testing"

func TestFirst(*testing.T) {}

func TestWaits(t *testing.T) { t.Parallel(); select {} }

func TestPanics(t *testing.T) {
	t.Run("inside", func(*testing.T) {
		var numbers map[string]int
		numbers["one"] = 1
	})
}

func TestNever(*testing.T) {}
