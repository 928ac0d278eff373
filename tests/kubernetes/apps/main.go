// The applications of the cluster tests, as one static program: servers that a sidecar stands in front of, and clients.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const usage = `usage:
  apps serve            HTTP on 8080, HTTPS on 8443, gRPC health checking on 50051, until SIGTERM and 5 s more
  apps call ADDR N      N unary calls and one stream on one connection
  apps load URL         requests without a pause until stdin ends; says when it has made 100, and in the end how many there
                        were and how many failed
  apps collect          a collector of traces on 4318, until SIGTERM: prints each export as it came, one a line
  apps mutate ADDR CERT KEY
                        a mutating webhook, until SIGTERM; what it does to pods is the path: /add, /reverse or /strip`

func main() {
	log.SetFlags(0)
	var err error
	switch arguments := os.Args[1:]; {
	case len(arguments) == 1 && arguments[0] == "serve":
		err = serve()
	case len(arguments) == 3 && arguments[0] == "call":
		err = call(arguments[1], arguments[2])
	case len(arguments) == 2 && arguments[0] == "load":
		load(arguments[1])
	case len(arguments) == 1 && arguments[0] == "collect":
		err = collect()
	case len(arguments) == 4 && arguments[0] == "mutate":
		err = mutate(arguments[1], arguments[2], arguments[3])
	default:
		err = errors.New(usage)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func terminated() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	return signals
}

// answer says who asks, and whether over TLS.
func answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/metrics" {
		fmt.Fprintln(w, "apps_up 1")
		return
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	fmt.Fprintf(w, "%s %t\n", host, r.TLS != nil)
}

func serve() error {
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	handler := http.HandlerFunc(answer)
	plain := &http.Server{Addr: ":8080", Handler: handler}
	secure := &http.Server{Addr: ":8443", Handler: handler,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	listener, err := net.Listen("tcp", ":50051")
	if err != nil {
		return err
	}
	calls := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(calls, health.NewServer())
	failed := make(chan error, 3)
	go func() { failed <- plain.ListenAndServe() }()
	go func() { failed <- secure.ListenAndServeTLS("", "") }()
	go func() { failed <- calls.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-terminated():
	}
	// Others learn late that this pod leaves.
	time.Sleep(5 * time.Second)
	calls.GracefulStop()
	return plain.Shutdown(context.Background())
}

func collect() error {
	server := &http.Server{Addr: ":4318"}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/traces" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Println(string(body))
		fmt.Fprint(w, "{}")
	})
	go func() {
		<-terminated()
		server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func call(address, text string) error {
	count, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := grpc_health_v1.NewHealthClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for range count {
		response, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			return err
		}
		if response.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("not serving: %v", response)
		}
	}
	stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	fmt.Printf("%d calls and a stream\n", count)
	return nil
}

func load(url string) {
	client := &http.Client{Timeout: 30 * time.Second}
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	requests, failures := 0, 0
	for {
		select {
		case <-stop:
			fmt.Printf("%d requests, %d failures\n", requests, failures)
			return
		default:
		}
		requests++
		if err := get(client, url); err != nil {
			failures++
			fmt.Printf("request %d: %v\n", requests, err)
		}
		if requests == 100 {
			fmt.Println("100 requests")
		}
	}
}

func get(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	return err
}
