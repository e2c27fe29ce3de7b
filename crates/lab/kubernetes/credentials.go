package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// lifetime of every certificate. A lab lives for hours, and is made anew.
const lifetime = 365 * 24 * time.Hour

// client is somebody who speaks to the API server, by a certificate in a kubeconfig file of that name.
type client struct {
	file, user string
	groups     []string
}

var clients = []client{
	{"admin", "kubernetes-admin", []string{"system:masters"}},
	{"kube-controller-manager", "system:kube-controller-manager", nil},
	{"kube-scheduler", "system:kube-scheduler", nil},
	{"kube-proxy", "system:kube-proxy", nil},
}

// runCredentials makes what a cluster's programs know each other by, in a directory: a CA that all trust, the API server's
// certificates, the key of service accounts, and a kubeconfig for each client. What is there already stays, so that nodes may be
// added later.
func runCredentials() int {
	flags := flag.NewFlagSet("credentials", flag.ExitOnError)
	dir := flags.String("dir", "", "the directory")
	server := flags.String("server", "", "the API server's address for its clients, as https://10.0.0.5:443")
	names := flags.String("names", "", "host names and addresses of the API server, with commas between")
	local := flags.String("local", "", "a second address of the API server, for people on this machine: a kubeconfig named \"kubeconfig\"")
	nodes := flags.String("nodes", "", "names of nodes to make a kubeconfig for, with commas between")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return 2
	}
	if *dir == "" || *server == "" {
		fmt.Fprintln(os.Stderr, "credentials: -dir and -server are needed")
		return 2
	}
	if err := makeCredentials(*dir, *server, *local, list(*names), list(*nodes)); err != nil {
		fmt.Fprintln(os.Stderr, "credentials:", err)
		return 1
	}
	return 0
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

func makeCredentials(dir, server, local string, names, nodes []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := authority(dir)
	if err != nil {
		return err
	}
	if err := ca.once(dir, "kube-apiserver", certificate{user: "kube-apiserver", names: names, usage: x509.ExtKeyUsageServerAuth}); err != nil {
		return err
	}
	// By this one the API server speaks to kubelets, which ask it what the bearer may do.
	kubelets := certificate{user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}, usage: x509.ExtKeyUsageClientAuth}
	if err := ca.once(dir, "kube-apiserver-kubelet-client", kubelets); err != nil {
		return err
	}
	if err := serviceAccountKey(dir); err != nil {
		return err
	}
	all := clients
	for _, node := range nodes {
		all = append(all, client{"kubelet-" + node, "system:node:" + node, []string{"system:nodes"}})
	}
	for _, c := range all {
		if err := ca.kubeconfig(dir, c, server, c.file+".kubeconfig"); err != nil {
			return err
		}
	}
	if local == "" {
		return nil
	}
	return ca.kubeconfig(dir, clients[0], local, "kubeconfig")
}

type certificate struct {
	user   string
	groups []string
	names  []string
	usage  x509.ExtKeyUsage
}

type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// authority reads the CA of the directory, or makes it.
func authority(dir string) (*issuer, error) {
	certificateFile, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	text, err := os.ReadFile(certificateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(certificateFile, keyFile)
	}
	if err != nil {
		return nil, err
	}
	keyText, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	keyBlock, _ := pem.Decode(keyText)
	if block == nil || keyBlock == nil {
		return nil, fmt.Errorf("%s or %s holds no PEM", certificateFile, keyFile)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certificateFile, err)
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	return &issuer{parsed, key, text}, nil
}

func newAuthority(certificateFile, keyFile string) (*issuer, error) {
	template, err := template("vpcnet-lab")
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeKey(keyFile, key); err != nil {
		return nil, err
	}
	return &issuer{parsed, key, text}, os.WriteFile(certificateFile, text, 0o644)
}

func template(user string, groups ...string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: user, Organization: groups},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, nil
}

// issue makes a key and a certificate for it, both in PEM.
func (ca *issuer) issue(wanted certificate) (certificatePEM, keyPEM []byte, err error) {
	template, err := template(wanted.user, wanted.groups...)
	if err != nil {
		return nil, nil, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{wanted.usage}
	for _, name := range wanted.names {
		if address := net.ParseIP(name); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	certificatePEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return certificatePEM, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}

// once writes NAME.crt and NAME.key unless they are there.
func (ca *issuer) once(dir, name string, wanted certificate) error {
	certificateFile := filepath.Join(dir, name+".crt")
	if there(certificateFile) {
		return nil
	}
	certificatePEM, keyPEM, err := ca.issue(wanted)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".key"), keyPEM, 0o600); err != nil {
		return err
	}
	return os.WriteFile(certificateFile, certificatePEM, 0o644)
}

func (ca *issuer) kubeconfig(dir string, c client, server, file string) error {
	path := filepath.Join(dir, file)
	if there(path) {
		return nil
	}
	certificatePEM, keyPEM, err := ca.issue(certificate{user: c.user, groups: c.groups, usage: x509.ExtKeyUsageClientAuth})
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["vpcnet-lab"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca.pem}
	config.AuthInfos[c.user] = &clientcmdapi.AuthInfo{ClientCertificateData: certificatePEM, ClientKeyData: keyPEM}
	config.Contexts["vpcnet-lab"] = &clientcmdapi.Context{Cluster: "vpcnet-lab", AuthInfo: c.user}
	config.CurrentContext = "vpcnet-lab"
	return clientcmd.WriteToFile(*config, path)
}

// serviceAccountKey makes the key that signs service accounts' tokens, and its public half that checks them.
func serviceAccountKey(dir string) error {
	file := filepath.Join(dir, "service-account.key")
	if there(file) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, "service-account.pub"), public, 0o644); err != nil {
		return err
	}
	return writeKey(file, key)
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func there(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
