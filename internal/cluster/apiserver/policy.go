package apiserver

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapiserver "k8s.io/apiserver/pkg/server"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// policy is what users and components may do before anybody said so.
type policy rbacrest.PolicyData

// bootstrapPolicy is upstream's, and what nodes and minato's agents may do.
func bootstrapPolicy() policy {
	return policy{
		ClusterRoles: append(append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...), agentRole(), metricsReader()),
		ClusterRoleBindings: append(append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...),
			// Upstream leaves nodes to its Node authorizer, which is not used here.
			bind("minato:nodes", "system:node", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: user.NodesGroup}),
			bind("minato:agent", "minato:agent", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: agentUser}),
		),
		Roles:        bootstrappolicy.NamespaceRoles(),
		RoleBindings: bootstrappolicy.NamespaceRoleBindings(),
	}
}

func (p policy) seeds() []seeded {
	var all []seeded
	for _, o := range p.ClusterRoles {
		all = append(all, seeded{rbacv1.Resource("clusterroles"), &o})
	}
	for _, o := range p.ClusterRoleBindings {
		all = append(all, seeded{rbacv1.Resource("clusterrolebindings"), &o})
	}
	for _, objects := range p.Roles {
		for _, o := range objects {
			all = append(all, seeded{rbacv1.Resource("roles"), &o})
		}
	}
	for _, objects := range p.RoleBindings {
		for _, o := range objects {
			all = append(all, seeded{rbacv1.Resource("rolebindings"), &o})
		}
	}
	return all
}

// fingerprint differs between two releases whose policies differ.
func (p policy) fingerprint() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // plain structs of strings
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// reconcile brings an instance of another release to this policy as upstream does:
// missing rules and subjects are added, what users added stays.
func (s *Server) reconcile(h genericapiserver.PostStartHookContext) error {
	p := bootstrapPolicy()
	data := rbacrest.PolicyData(p)
	if err := data.EnsureRBACPolicy()(h); err != nil {
		return err
	}
	if _, err := s.etcd.Put(h, policyKey, p.fingerprint()); err != nil {
		return fmt.Errorf("noting the policy: %w", err)
	}
	return nil
}

func bind(name, role string, to rbacv1.Subject) rbacv1.ClusterRoleBinding {
	return rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{to},
	}
}

// metricsReader lets whoever may view a namespace ask what its pods use, as metrics-server's manifest does.
func metricsReader() rbacv1.ClusterRole {
	role := rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "system:aggregated-metrics-reader"}}
	role.Labels = map[string]string{}
	for _, to := range []string{"view", "edit", "admin"} {
		role.Labels["rbac.authorization.k8s.io/aggregate-to-"+to] = "true"
	}
	role.Rules = []rbacv1.PolicyRule{{APIGroups: []string{"metrics.k8s.io"}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"}}}
	return role
}

// agentRole lets an agent read what decides where traffic goes, and write only
// addresses, status, its heartbeats and Events.
func agentRole() rbacv1.ClusterRole {
	rule := func(group string, verbs []string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Verbs: verbs, Resources: resources}
	}
	read, update := bootstrappolicy.Read, []string{"update", "patch"}
	return rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "minato:agent"},
		Rules: []rbacv1.PolicyRule{
			rule("", read, "services", "endpoints", "nodes", "namespaces", "pods", "configmaps", "secrets"),
			rule("discovery.k8s.io", read, "endpointslices"),
			rule("networking.k8s.io", read, "ingresses", "ingressclasses", "networkpolicies", "servicecidrs"),
			rule("metallb.io", read, rbacv1.ResourceAll),
			rule("apiextensions.k8s.io", read, "customresourcedefinitions"),
			rule("", update, "services/status"),
			rule("networking.k8s.io", update, "ingresses/status"),
			rule("discovery.k8s.io", bootstrappolicy.Write, "endpointslices"),
			rule("coordination.k8s.io", bootstrappolicy.ReadWrite, "leases"),
			rule("", []string{"create", "update", "patch"}, "events"),
			rule("events.k8s.io", []string{"create", "update", "patch"}, "events"),
		},
	}
}
