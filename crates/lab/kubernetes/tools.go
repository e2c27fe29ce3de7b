//go:build tools

// Keeps what scripts/kubernetes builds beside this module's own programs in go.mod: upstream's end-to-end tests, their runner
// and the image they run in pods.
package main

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
