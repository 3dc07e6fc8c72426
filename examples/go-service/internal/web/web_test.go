package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.org/linkd/internal/links"
)

func do(t *testing.T, h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(method, path, strings.NewReader(body)))
	return answer
}

func TestAnAddedLinkRedirects(t *testing.T) {
	h := Handler(links.NewStore(10), "1.0")
	added := do(t, h, "POST", "/links", "https://example.org/x?y=1\n")
	if added.Code != http.StatusCreated {
		t.Fatalf("got %d: %s", added.Code, added.Body)
	}
	path := strings.TrimSpace(added.Body.String())
	got := do(t, h, "GET", path, "")
	if got.Code != http.StatusFound || got.Header().Get("Location") != "https://example.org/x?y=1" {
		t.Errorf("%s: got %d to %q", path, got.Code, got.Header().Get("Location"))
	}
}

func TestAnswers(t *testing.T) {
	h := Handler(links.NewStore(0), "1.2.3")
	for _, c := range []struct {
		method, path, body string
		code               int
		text               string
	}{
		{"GET", "/healthz", "", http.StatusOK, "ok\n"},
		{"GET", "/version", "", http.StatusOK, "1.2.3\n"},
		{"GET", "/l/nothing", "", http.StatusNotFound, ""},
		{"GET", "/links", "", http.StatusMethodNotAllowed, ""},
		{"POST", "/links", "nowhere", http.StatusBadRequest, ""},
		{"POST", "/links", "https://example.org/", http.StatusInsufficientStorage, ""},
		{"POST", "/links", strings.Repeat("x", maxAddress+1), http.StatusRequestEntityTooLarge, ""},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			got := do(t, h, c.method, c.path, c.body)
			if got.Code != c.code || (c.text != "" && got.Body.String() != c.text) {
				t.Errorf("got %d %q, wanted %d %q", got.Code, got.Body, c.code, c.text)
			}
		})
	}
}
