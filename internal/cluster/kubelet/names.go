//go:build linux

package kubelet

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
)

const (
	hostsPath     = "/etc/hosts"
	hostnameLimit = 63
	utsLimit      = 64 // of Linux
)

// hostname is a pod's hostname and, with a subdomain, its domain (GeneratePodHostNameAndDomain of pkg/kubelet).
func hostname(pod *v1.Pod, clusterDomain string) (host, domain string) {
	if pod.Spec.HostnameOverride != nil {
		return truncate(*pod.Spec.HostnameOverride), ""
	}
	host = pod.Name
	if pod.Spec.Hostname != "" {
		host = pod.Spec.Hostname
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
	}
	return truncate(host), domain
}

// truncate cuts a name to what the kernel takes, without an end that is no name.
func truncate(host string) string {
	if len(host) > hostnameLimit {
		host = strings.TrimRight(host[:hostnameLimit], "-.")
	}
	return host
}

// utsName is what the pod's containers see as their host's name.
func utsName(pod *v1.Pod, host, domain string) (string, error) {
	if !isTrue(pod.Spec.SetHostnameAsFQDN) || domain == "" {
		return host, nil
	}
	fqdn := host + "." + domain
	if len(fqdn) > utsLimit {
		return "", fmt.Errorf("failed to construct FQDN from Pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", fqdn, utsLimit, len(fqdn))
	}
	return fqdn, nil
}

// hosts is the content of a pod's /etc/hosts, byte for byte as the kubelet writes it.
func hosts(ips []string, host, domain string, aliases []v1.HostAlias) []byte {
	var b bytes.Buffer
	b.WriteString("# Kubernetes-managed hosts file.\n" +
		"127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\n" +
		"fe00::1\tip6-allnodes\n" +
		"fe00::2\tip6-allrouters\n")
	for _, ip := range ips {
		if domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, host, domain, host)
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", ip, host)
		}
	}
	writeAliases(&b, aliases)
	return b.Bytes()
}

// nodeHosts is the content of a hostNetwork pod's: the host's own file and the aliases.
func nodeHosts(path string, aliases []v1.HostAlias) ([]byte, error) {
	own, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("# Kubernetes-managed hosts file (host network).\n")
	b.Write(own)
	writeAliases(&b, aliases)
	return b.Bytes(), nil
}

func writeAliases(b *bytes.Buffer, aliases []v1.HostAlias) {
	if len(aliases) == 0 {
		return
	}
	b.WriteString("\n# Entries added by HostAliases.\n")
	for _, alias := range aliases {
		fmt.Fprintf(b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
}
