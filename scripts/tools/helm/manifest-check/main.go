// manifest-check reads manifests from standard input and judges those of Kubernetes' own kinds by its own types: an unknown field, a
// value of a wrong type and a kind that does not exist are errors. Kinds of custom resources are only counted.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	taken, passed, wrong := 0, 0, 0
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	for number := 1; ; number++ {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fail("document %d: %v", number, err)
		}
		var kind *metav1.TypeMeta
		if err := yaml.Unmarshal(text, &kind); err != nil {
			fail("document %d: %v", number, err)
		}
		if kind == nil {
			continue // nothing but comments
		}
		_, _, err = decoder.Decode(text, nil, nil)
		switch {
		case err == nil:
			taken++
		case runtime.IsNotRegisteredError(err) && !scheme.Scheme.IsGroupRegistered(kind.GroupVersionKind().Group):
			passed++
		default:
			fmt.Fprintf(os.Stderr, "document %d: %v\n", number, err)
			wrong++
		}
	}
	fmt.Printf("%d objects taken, %d of kinds that are not Kubernetes' own, %d wrong\n", taken, passed, wrong)
	if wrong > 0 || taken == 0 {
		os.Exit(1)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}
