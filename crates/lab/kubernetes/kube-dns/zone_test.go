package main

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// testZone holds a Service `web` at 172.20.0.80, and a headless `db` with two endpoints, of which db-1 is not ready.
func testZone(t *testing.T, endpoints ...discoveryv1.Endpoint) zone {
	t.Helper()
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	services := cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNamespace)
	slices := cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNamespace)
	put := func(into cache.Indexer, object any) {
		if err := into.Add(object); err != nil {
			t.Fatal(err)
		}
	}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: name}}
	}
	http := []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}
	put(services, &corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{ClusterIP: "172.20.0.80", ClusterIPs: []string{"172.20.0.80"}, Ports: http}})
	put(services, &corev1.Service{ObjectMeta: meta("db"), Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}})
	put(services, &corev1.Service{ObjectMeta: meta("out"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web.default.svc.cluster.local"}})
	name, protocol, number, yes, no := "sql", corev1.ProtocolTCP, int32(5432), true, false
	first, second := "db-0", "db-1"
	endpoints = append(endpoints,
		discoveryv1.Endpoint{Addresses: []string{"10.0.0.10"}, Hostname: &first, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
		discoveryv1.Endpoint{Addresses: []string{"10.0.0.11"}, Hostname: &second, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
		discoveryv1.Endpoint{Addresses: []string{"10.0.0.12"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
	)
	put(slices, &discoveryv1.EndpointSlice{
		ObjectMeta: meta("db"),
		Ports:      []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &number}},
		Endpoints:  endpoints,
	})
	return zone{"cluster.local", corelisters.NewServiceLister(services), discoverylisters.NewEndpointSliceLister(slices)}
}

// told is an answer in words, sorted; "no such name" or "nothing" where there is none.
func told(z zone, name string, kind dnsmessage.Type) []string {
	records, known := z.answer(name, kind)
	if !known {
		return []string{"no such name"}
	}
	var all []string
	for _, r := range records {
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			all = append(all, fmt.Sprint(body.A[:]))
		case *dnsmessage.SRVResource:
			all = append(all, fmt.Sprint(body.Target, " ", body.Port))
		case *dnsmessage.PTRResource:
			all = append(all, body.PTR.String())
		case *dnsmessage.CNAMEResource:
			all = append(all, body.CNAME.String())
		}
	}
	if all == nil {
		return []string{"nothing"}
	}
	slices.Sort(all)
	return all
}

func TestNamesLeadWhereTheSpecificationSays(t *testing.T) {
	z := testZone(t)
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want []string
	}{
		{"web.default.svc.cluster.local.", dnsmessage.TypeA, []string{"[172 20 0 80]"}},
		{"WEB.default.svc.cluster.local.", dnsmessage.TypeA, []string{"[172 20 0 80]"}},
		{"web.default.svc.cluster.local.", dnsmessage.TypeAAAA, []string{"nothing"}},
		{"web.other.svc.cluster.local.", dnsmessage.TypeA, []string{"no such name"}},
		{"x.web.default.svc.cluster.local.", dnsmessage.TypeA, []string{"no such name"}},
		{"_http._tcp.web.default.svc.cluster.local.", dnsmessage.TypeSRV, []string{"web.default.svc.cluster.local. 80"}},
		{"_http._udp.web.default.svc.cluster.local.", dnsmessage.TypeSRV, []string{"no such name"}},
		{"db.default.svc.cluster.local.", dnsmessage.TypeA, []string{"[10 0 0 10]", "[10 0 0 12]"}},
		{"db-0.db.default.svc.cluster.local.", dnsmessage.TypeA, []string{"[10 0 0 10]"}},
		{"db-1.db.default.svc.cluster.local.", dnsmessage.TypeA, []string{"no such name"}},
		{"10-0-0-12.db.default.svc.cluster.local.", dnsmessage.TypeA, []string{"[10 0 0 12]"}},
		{"_sql._tcp.db.default.svc.cluster.local.", dnsmessage.TypeSRV, []string{
			"10-0-0-12.db.default.svc.cluster.local. 5432", "db-0.db.default.svc.cluster.local. 5432",
		}},
		{"out.default.svc.cluster.local.", dnsmessage.TypeA, []string{"[172 20 0 80]", "web.default.svc.cluster.local."}},
		{"10-0-3-4.default.pod.cluster.local.", dnsmessage.TypeA, []string{"[10 0 3 4]"}},
		{"x.default.pod.cluster.local.", dnsmessage.TypeA, []string{"no such name"}},
		{"80.0.20.172.in-addr.arpa.", dnsmessage.TypePTR, []string{"web.default.svc.cluster.local."}},
		{"10.0.0.10.in-addr.arpa.", dnsmessage.TypePTR, []string{"db-0.db.default.svc.cluster.local."}},
		{"1.0.0.10.in-addr.arpa.", dnsmessage.TypePTR, []string{"no such name"}},
		{"svc.cluster.local.", dnsmessage.TypeA, []string{"nothing"}},
		{"example.com.", dnsmessage.TypeA, []string{"no such name"}},
		{".", dnsmessage.TypeA, []string{"no such name"}},
	} {
		if got := told(z, c.name, c.kind); !slices.Equal(got, c.want) {
			t.Errorf("%s %s: got %q, want %q", c.kind, c.name, got, c.want)
		}
	}
}

func ask(t *testing.T, z zone, name string, size, limit int) dnsmessage.Message {
	t.Helper()
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	if size > 0 {
		option := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeOPT, Class: dnsmessage.Class(size)}
		query.Additionals = []dnsmessage.Resource{{Header: option, Body: &dnsmessage.OPTResource{}}}
	}
	packed, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(z.reply(packed, limit)); err != nil {
		t.Fatal(err)
	}
	if answer.ID != 7 || !answer.Response {
		t.Errorf("%s: no answer to the question: %v", name, answer.Header)
	}
	return answer
}

func TestAnAnswerThatIsTooLongIsCutUnlessThereIsRoom(t *testing.T) {
	var many []discoveryv1.Endpoint
	for i := range 100 {
		many = append(many, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.1.%d", i)}})
	}
	z := testZone(t, many...)
	const name = "db.default.svc.cluster.local."
	if cut := ask(t, z, name, 0, 0); !cut.Truncated || len(cut.Answers) != 0 {
		t.Errorf("by UDP: truncated %v with %d answers", cut.Truncated, len(cut.Answers))
	}
	for how, whole := range map[string]dnsmessage.Message{"by UDP with room": ask(t, z, name, 4096, 0), "by TCP": ask(t, z, name, 0, 65535)} {
		if whole.Truncated || len(whole.Answers) != 102 {
			t.Errorf("%s: truncated %v with %d answers", how, whole.Truncated, len(whole.Answers))
		}
	}
	if unknown := ask(t, z, "nobody.default.svc.cluster.local.", 0, 0); unknown.RCode != dnsmessage.RCodeNameError {
		t.Errorf("an unknown name is answered with %v", unknown.RCode)
	}
}

func FuzzWhateverComesIsAnsweredOrLeftAlone(f *testing.F) {
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"))
	f.Add([]byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, query []byte) {
		z := testZone(t)
		if answer := z.reply(query, 0); len(answer) > 4096 {
			t.Errorf("an answer of %d bytes", len(answer))
		}
	})
}
