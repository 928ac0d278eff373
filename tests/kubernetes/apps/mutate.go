// A mutating webhook of somebody else's, which does to pods what others are known to do.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
)

type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type request struct {
	UID    string `json:"uid"`
	Object struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Spec struct {
			Containers []map[string]any `json:"containers"`
		} `json:"spec"`
	} `json:"object"`
}

type response struct {
	UID       string `json:"uid"`
	Allowed   bool   `json:"allowed"`
	PatchType string `json:"patchType,omitempty"`
	Patch     []byte `json:"patch,omitempty"`
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// What each path does to a pod.
var mutations = map[string]func(r *request) []operation{
	"/add": func(r *request) []operation {
		spec := r.Object.Spec
		if slices.ContainsFunc(spec.Containers, func(c map[string]any) bool { return c["name"] == "other" }) {
			return nil
		}
		other := map[string]any{"name": "other", "image": "localhost/busybox:test",
			"readinessProbe": map[string]any{"httpGet": map[string]any{"port": 8080, "path": "/ready"}}}
		return []operation{{"add", "/spec/containers/-", other}}
	},
	"/reverse": func(r *request) []operation {
		slices.Reverse(r.Object.Spec.Containers)
		return []operation{{"replace", "/spec/containers", r.Object.Spec.Containers}}
	},
	"/strip": func(r *request) []operation {
		if len(r.Object.Metadata.Annotations) == 0 {
			return nil
		}
		return []operation{{"remove", "/metadata/annotations", nil}}
	},
}

func admit(w http.ResponseWriter, r *http.Request) {
	mutation := mutations[r.URL.Path]
	var asked review
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Request == nil || mutation == nil {
		http.Error(w, fmt.Sprint("no review, or no such path: ", r.URL.Path, err), http.StatusBadRequest)
		return
	}
	answer := &response{UID: asked.Request.UID, Allowed: true}
	if operations := mutation(asked.Request); len(operations) > 0 {
		answer.PatchType = "JSONPatch"
		answer.Patch, _ = json.Marshal(operations)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(review{APIVersion: asked.APIVersion, Kind: asked.Kind, Response: answer})
}

func mutate(address, certificate, key string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	failed := make(chan error, 1)
	go func() { failed <- http.ServeTLS(listener, http.HandlerFunc(admit), certificate, key) }()
	select {
	case err := <-failed:
		return err
	case <-terminated():
		return nil
	}
}
