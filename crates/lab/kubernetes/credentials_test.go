package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func parsed(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAllTrustOneAuthorityAndNodesMayBeAddedLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "credentials")
	prepare := func(nodes ...string) {
		t.Helper()
		err := makeCredentials(dir, "https://10.0.16.9:443", "https://127.0.0.1:4000", []string{"10.0.16.9", "kubernetes"}, nodes)
		if err != nil {
			t.Fatal(err)
		}
	}
	prepare("ip-10-0-0-5")
	first := read(t, filepath.Join(dir, "kube-apiserver.crt"))
	prepare("ip-10-0-0-6")
	if string(read(t, filepath.Join(dir, "kube-apiserver.crt"))) != string(first) {
		t.Error("the API server's certificate was made anew")
	}

	roots := x509.NewCertPool()
	roots.AddCert(parsed(t, read(t, filepath.Join(dir, "ca.crt"))))
	server := parsed(t, first)
	for _, name := range []string{"10.0.16.9", "kubernetes"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if server.IsCA {
		t.Error("the server's certificate is an authority's: rustls refuses that")
	}
	for file, want := range map[string]struct{ user, group, server string }{
		"kubelet-ip-10-0-0-5.kubeconfig": {"system:node:ip-10-0-0-5", "system:nodes", "https://10.0.16.9:443"},
		"kubelet-ip-10-0-0-6.kubeconfig": {"system:node:ip-10-0-0-6", "system:nodes", "https://10.0.16.9:443"},
		"kube-proxy.kubeconfig":          {"system:kube-proxy", "", "https://10.0.16.9:443"},
		"kubeconfig":                     {"kubernetes-admin", "system:masters", "https://127.0.0.1:4000"},
	} {
		config, err := clientcmd.LoadFromFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		context := config.Contexts[config.CurrentContext]
		certificate := parsed(t, config.AuthInfos[context.AuthInfo].ClientCertificateData)
		usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: usage}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		var group string
		if len(certificate.Subject.Organization) > 0 {
			group = certificate.Subject.Organization[0]
		}
		if certificate.Subject.CommonName != want.user || group != want.group || config.Clusters[context.Cluster].Server != want.server {
			t.Errorf("%s is %s of %s at %s", file, certificate.Subject.CommonName, group, config.Clusters[context.Cluster].Server)
		}
	}
	for _, secret := range []string{"ca.key", "service-account.key", "kube-apiserver.key", "kubeconfig"} {
		info, err := os.Stat(filepath.Join(dir, secret))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", secret, info.Mode(), err)
		}
	}
}
