package broken

import "testing"

func TestX(*testing.T) { undefined() }
