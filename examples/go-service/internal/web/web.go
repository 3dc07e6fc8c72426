// Package web is the HTTP face of a link store:
//
//	POST /links    the body is an address; answers 201 with the short one
//	GET  /l/CODE   redirects
//	GET  /healthz  200 while the service is well
//	GET  /version  what was built
package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"example.org/linkd/internal/links"
)

const maxAddress = 4096

// Handler serves the store.
func Handler(store *links.Store, version string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/links", func(w http.ResponseWriter, r *http.Request) { add(store, w, r) })
	mux.HandleFunc("/l/", func(w http.ResponseWriter, r *http.Request) { follow(store, w, r) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, version) })
	return mux
}

func add(store *links.Store, w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST an address", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAddress))
	if err != nil {
		http.Error(w, "the address is too long", http.StatusRequestEntityTooLarge)
		return
	}
	code, err := store.Add(strings.TrimSpace(string(body)))
	switch {
	case errors.Is(err, links.ErrNotAnAddress):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
	default:
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintln(w, "/l/"+code)
	}
}

func follow(store *links.Store, w http.ResponseWriter, r *http.Request) {
	target, ok := store.Follow(strings.TrimPrefix(r.URL.Path, "/l/"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.Redirect(w, r, target, http.StatusFound)
}
