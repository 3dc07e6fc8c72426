package links

import (
	"errors"
	"fmt"
	"sync"
	"testing"
)

func TestAddGivesTheSameCodeAgain(t *testing.T) {
	s := NewStore(10)
	first, err := s.Add("https://example.org/a/long/path")
	if err != nil || len(first) != codeLength {
		t.Fatalf("got %q, %v", first, err)
	}
	again, err := s.Add("https://example.org/a/long/path")
	if err != nil || again != first {
		t.Fatalf("got %q, %v; wanted %q", again, err, first)
	}
}

func TestAddRefusesWhatIsNoAddress(t *testing.T) {
	for _, target := range []string{"", "example.org", "ftp://example.org/", "http://", "https:///x", ":"} {
		if _, err := NewStore(10).Add(target); !errors.Is(err, ErrNotAnAddress) {
			t.Errorf("%q: got %v", target, err)
		}
	}
}

func TestAFullStoreTakesOnlyWhatItKnows(t *testing.T) {
	s := NewStore(1)
	code, _ := s.Add("https://example.org/1")
	if _, err := s.Add("https://example.org/2"); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	if again, err := s.Add("https://example.org/1"); err != nil || again != code {
		t.Errorf("got %q, %v", again, err)
	}
}

func TestASharedPrefixMakesALongerCode(t *testing.T) {
	s := NewStore(10)
	code, _ := s.Add("https://example.org/1")
	s.targets[code] = "https://example.org/other"
	longer, err := s.Add("https://example.org/1")
	if err != nil || len(longer) != codeLength+1 {
		t.Errorf("got %q, %v", longer, err)
	}
}

// For the race detector: readers and writers at once.
func TestManyAtOnce(t *testing.T) {
	s := NewStore(1000)
	var wait sync.WaitGroup
	for i := 0; i < 8; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for k := 0; k < 100; k++ {
				code, err := s.Add(fmt.Sprintf("https://example.org/%d", k))
				if err != nil {
					t.Error(err)
				}
				if _, ok := s.Follow(code); !ok {
					t.Errorf("%s is lost", code)
				}
			}
		}()
	}
	wait.Wait()
	code, _ := s.Add("https://example.org/0")
	if got := s.Hits(code); got != 8 {
		t.Errorf("got %d hits, wanted 8", got)
	}
}
