package apiserver

import (
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/client-go/informers"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac"
)

// authorize is RBAC, with system:masters allowed everything even before roles are
// read. Upstream's Node authorizer is left out: it keeps nodes of different owners
// apart, and all nodes here are one process.
func authorize(inf informers.SharedInformerFactory) (authorizer.Authorizer, authorizer.RuleResolver) {
	v1 := inf.Rbac().V1()
	roles := rbac.New(
		&rbac.RoleGetter{Lister: v1.Roles().Lister()},
		&rbac.RoleBindingLister{Lister: v1.RoleBindings().Lister()},
		&rbac.ClusterRoleGetter{Lister: v1.ClusterRoles().Lister()},
		&rbac.ClusterRoleBindingLister{Lister: v1.ClusterRoleBindings().Lister()},
	)
	return union.New(authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup), roles), roles
}
