package main

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

// zone answers for the names of a cluster, as "Kubernetes DNS-Based Service Discovery" 1.1.0 says.
type zone struct {
	// domain is the cluster's, without dots at its ends: "cluster.local".
	domain   string
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

// ttl of every answer in seconds: what stands behind a name changes within moments.
const ttl = 5

// place is one address that a service's name leads to.
type place struct {
	// host is the label before the service's name for an endpoint of a headless service; else empty.
	host    string
	address netip.Addr
	ports   []port
}

type port struct {
	name, protocol string
	number         uint16
}

// answer gives what is known of a name; known tells a name without records of that type from one that does not exist.
func (z zone) answer(name string, kind dnsmessage.Type) (records []dnsmessage.Resource, known bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if reversed, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		return z.pointer(name, reversed, kind)
	}
	rest, ok := strings.CutSuffix(name, "."+z.domain)
	if !ok {
		return nil, name == z.domain
	}
	words := strings.Split(rest, ".")
	slices.Reverse(words)
	switch {
	case words[0] == "pod" && len(words) == 3:
		return podRecords(name, words[2], kind)
	case words[0] == "svc" && len(words) >= 3:
		service, err := z.services.Services(words[1]).Get(words[2])
		if err != nil {
			return nil, false
		}
		before := words[3:]
		slices.Reverse(before)
		return z.ofService(name, service, before, kind)
	default:
		// The inner nodes of the tree.
		return nil, len(words) == 1 && (words[0] == "svc" || words[0] == "pod")
	}
}

// ofService answers for a service's name, or with labels before it.
func (z zone) ofService(name string, service *corev1.Service, before []string, kind dnsmessage.Type) ([]dnsmessage.Resource, bool) {
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		if len(before) > 0 {
			return nil, false
		}
		target := strings.TrimSuffix(service.Spec.ExternalName, ".")
		records := add(nil, name, dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: full(target)})
		// A stub resolver does not ask again for what the name stands for.
		if kind != dnsmessage.TypeCNAME && strings.HasSuffix(target, "."+z.domain) && target != name {
			further, _ := z.answer(target, kind)
			records = append(records, further...)
		}
		return records, true
	}
	places := z.places(service)
	canonical := service.Name + "." + service.Namespace + ".svc." + z.domain
	switch len(before) {
	case 0:
		return addresses(name, places, kind), true
	case 1:
		of := slices.DeleteFunc(places, func(p place) bool { return p.host == "" || p.host != before[0] })
		return addresses(name, of, kind), len(of) > 0
	case 2:
		return ports(name, canonical, places, before[0], before[1], kind)
	default:
		return nil, false
	}
}

// places lists the cluster addresses of a service, or the endpoints of a headless one.
func (z zone) places(service *corev1.Service) []place {
	if service.Spec.ClusterIP != corev1.ClusterIPNone {
		var ports []port
		for _, p := range service.Spec.Ports {
			ports = append(ports, port{p.Name, strings.ToLower(string(p.Protocol)), uint16(p.Port)})
		}
		var all []place
		for _, text := range service.Spec.ClusterIPs {
			if address, err := netip.ParseAddr(text); err == nil {
				all = append(all, place{address: address, ports: ports})
			}
		}
		return all
	}
	found, err := z.slices.EndpointSlices(service.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name}))
	if err != nil {
		return nil
	}
	var all []place
	for _, slice := range found {
		var ports []port
		for _, p := range slice.Ports {
			if p.Name != nil && p.Port != nil && p.Protocol != nil {
				ports = append(ports, port{*p.Name, strings.ToLower(string(*p.Protocol)), uint16(*p.Port)})
			}
		}
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready {
				continue
			}
			for _, text := range endpoint.Addresses {
				address, err := netip.ParseAddr(text)
				if err != nil {
					continue
				}
				host := dashed(address)
				if endpoint.Hostname != nil && *endpoint.Hostname != "" {
					host = *endpoint.Hostname
				}
				all = append(all, place{host, address, ports})
			}
		}
	}
	return all
}

func addresses(name string, places []place, kind dnsmessage.Type) (records []dnsmessage.Resource) {
	for _, p := range places {
		switch {
		case kind == dnsmessage.TypeA && p.address.Is4():
			records = add(records, name, kind, &dnsmessage.AResource{A: p.address.As4()})
		case kind == dnsmessage.TypeAAAA && p.address.Is6():
			records = add(records, name, kind, &dnsmessage.AAAAResource{AAAA: p.address.As16()})
		}
	}
	return records
}

// ports answers for _port._protocol before a service's name.
func ports(name, canonical string, places []place, portLabel, protocolLabel string, kind dnsmessage.Type) (records []dnsmessage.Resource, known bool) {
	for _, place := range places {
		target := canonical
		if place.host != "" {
			target = place.host + "." + canonical
		}
		for _, p := range place.ports {
			if "_"+p.name != portLabel || "_"+p.protocol != protocolLabel {
				continue
			}
			known = true
			if kind == dnsmessage.TypeSRV {
				records = add(records, name, kind, &dnsmessage.SRVResource{Weight: 1, Port: p.number, Target: full(target)})
			}
		}
	}
	return records, known
}

// pointer answers for d.c.b.a.in-addr.arpa.
func (z zone) pointer(name, reversed string, kind dnsmessage.Type) (records []dnsmessage.Resource, known bool) {
	words := strings.Split(reversed, ".")
	slices.Reverse(words)
	wanted, err := netip.ParseAddr(strings.Join(words, "."))
	if err != nil {
		return nil, false
	}
	services, err := z.services.List(labels.Everything())
	if err != nil {
		return nil, false
	}
	for _, service := range services {
		for _, place := range z.places(service) {
			if place.address != wanted {
				continue
			}
			known = true
			target := service.Name + "." + service.Namespace + ".svc." + z.domain
			if place.host != "" {
				target = place.host + "." + target
			}
			if kind == dnsmessage.TypePTR {
				records = add(records, name, kind, &dnsmessage.PTRResource{PTR: full(target)})
			}
		}
	}
	return records, known
}

// podRecords answers for a-b-c-d.namespace.pod: the name holds the address.
func podRecords(name, label string, kind dnsmessage.Type) ([]dnsmessage.Resource, bool) {
	address, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	if err != nil {
		return nil, false
	}
	return addresses(name, []place{{address: address}}, kind), true
}

func dashed(address netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(address.String())
}

// full is a name as DNS writes it; one that is too long for it, which no object's name can make, is the root.
func full(name string) dnsmessage.Name {
	made, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return dnsmessage.MustNewName(".")
	}
	return made
}

func add(records []dnsmessage.Resource, name string, kind dnsmessage.Type, body dnsmessage.ResourceBody) []dnsmessage.Resource {
	header := dnsmessage.ResourceHeader{Name: full(name), Type: kind, Class: dnsmessage.ClassINET, TTL: ttl}
	return append(records, dnsmessage.Resource{Header: header, Body: body})
}
