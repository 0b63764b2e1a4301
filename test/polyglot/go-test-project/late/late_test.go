package late

import (
	"testing"
	"time"
)

func TestQuick(*testing.T) {}

func TestSlow(t *testing.T) { t.Log("waiting"); time.Sleep(time.Minute) }

func TestNever(*testing.T) {}
