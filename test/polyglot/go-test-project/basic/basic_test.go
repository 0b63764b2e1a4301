package basic

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestPass(t *testing.T) {
	t.Log("hello")
	fmt.Println("to standard output")
	fmt.Fprintln(os.Stderr, "to standard error")
}

func TestFail(t *testing.T) {
	t.Errorf("want %d\ngot %d", 1, 2)
	fmt.Print("a line without an end")
}

func TestSkip(t *testing.T) { t.Skip("not today") }

func TestParts(t *testing.T) {
	t.Run("a b", func(t *testing.T) {
		t.Run("x/y", func(*testing.T) {})
		t.Run("bad", func(t *testing.T) { t.Fatal("deep inside") })
	})
	t.Run("same", func(*testing.T) {})
	t.Run("same", func(*testing.T) {})
	t.Run("", func(*testing.T) {})
	t.Run("ends with /", func(*testing.T) {})
	t.Run("skips", func(t *testing.T) { t.SkipNow() })
	t.Run(`(.*)+$[|\`, func(*testing.T) {})
}

func TestParallelA(t *testing.T) { t.Parallel(); time.Sleep(30 * time.Millisecond); t.Log("A") }

func TestParallelB(t *testing.T) { t.Parallel(); time.Sleep(10 * time.Millisecond); t.Log("B") }

func BenchmarkAdd(b *testing.B) {
	for i := 0; i < b.N; i++ {
		Add(1, 2)
	}
}

func ExampleAdd() {
	fmt.Println(Add(1, 2))
	// Output: 3
}

func ExampleAdd_wrong() {
	fmt.Println(Add(1, 2))
	// Output: 4
}

func FuzzAdd(f *testing.F) {
	f.Add(1)
	f.Add(2)
	f.Fuzz(func(t *testing.T, a int) {
		if a < 100 && Add(a, 1) != a+1 {
			t.Fatal("wrong sum")
		}
	})
}
