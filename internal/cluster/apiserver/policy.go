package apiserver

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// policy is upstream's bootstrap policy, and what nodes and minato's agents may do.
func policy() []seeded {
	var all []seeded
	roles := append(append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...), agentRole())
	for _, role := range roles {
		all = append(all, seeded{rbacv1.Resource("clusterroles"), &role})
	}
	bindings := append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...)
	bindings = append(bindings,
		// Upstream leaves nodes to its Node authorizer, which is not used here.
		bind("minato:nodes", "system:node", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: user.NodesGroup}),
		bind("minato:agent", "minato:agent", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: agentUser}),
	)
	for _, binding := range bindings {
		all = append(all, seeded{rbacv1.Resource("clusterrolebindings"), &binding})
	}
	for namespace, roles := range bootstrappolicy.NamespaceRoles() {
		for _, role := range roles {
			role.Namespace = namespace
			all = append(all, seeded{rbacv1.Resource("roles"), &role})
		}
	}
	for namespace, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		for _, binding := range bindings {
			binding.Namespace = namespace
			all = append(all, seeded{rbacv1.Resource("rolebindings"), &binding})
		}
	}
	return all
}

func bind(name, role string, to rbacv1.Subject) rbacv1.ClusterRoleBinding {
	return rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{to},
	}
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
