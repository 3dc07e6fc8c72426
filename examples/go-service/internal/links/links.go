// Package links keeps short codes for long addresses, in memory.
package links

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net/url"
	"strings"
	"sync"
)

// ErrNotAnAddress is what Add says of a target that is no absolute http or https URL.
var ErrNotAnAddress = errors.New("not an absolute http or https address")

// ErrFull is what Add says when the store holds as many links as it may.
var ErrFull = errors.New("too many links")

const codeLength = 7

var alphabet = base32.NewEncoding("abcdefghjkmnpqrstuvwxyz123456789").WithPadding(base32.NoPadding)

// Store maps codes to addresses. It is safe for use by several goroutines.
type Store struct {
	mu      sync.RWMutex
	targets map[string]string
	hits    map[string]int
	limit   int
}

// NewStore makes an empty store for at most limit links.
func NewStore(limit int) *Store {
	return &Store{targets: map[string]string{}, hits: map[string]int{}, limit: limit}
}

// Add returns the code of a target: the same one every time.
func (s *Store) Add(target string) (string, error) {
	u, err := url.Parse(target)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", ErrNotAnAddress
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256([]byte(target))
	long := strings.ToLower(alphabet.EncodeToString(sum[:]))
	// Two targets that begin with the same code: the later one gets a longer code.
	for n := codeLength; n <= len(long); n++ {
		known, taken := s.targets[long[:n]]
		if taken && known != target {
			continue
		}
		if !taken && len(s.targets) >= s.limit {
			return "", ErrFull
		}
		s.targets[long[:n]] = target
		return long[:n], nil
	}
	return "", ErrFull
}

// Follow returns the target of a code and counts the visit.
func (s *Store) Follow(code string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	target, ok := s.targets[code]
	if ok {
		s.hits[code]++
	}
	return target, ok
}

// Hits says how often a code was followed.
func (s *Store) Hits(code string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.hits[code]
}
