package apiserver

import (
	"crypto/ecdsa"
	"fmt"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	serviceaccountgetter "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// tokens signs and verifies ServiceAccount tokens.
type tokens struct {
	issuer    string
	generator serviceaccount.TokenGenerator
	keys      serviceaccount.PublicKeysGetter
}

func newTokens(clusterDomain string, key *ecdsa.PrivateKey) (tokens, error) {
	t := tokens{issuer: "https://kubernetes.default.svc." + clusterDomain}
	var err error
	if t.generator, err = serviceaccount.JWTTokenGenerator(t.issuer, key); err != nil {
		return t, fmt.Errorf("preparing ServiceAccount tokens: %w", err)
	}
	if t.keys, err = serviceaccount.StaticPublicKeysGetter([]any{key.Public()}); err != nil {
		return t, fmt.Errorf("preparing ServiceAccount tokens: %w", err)
	}
	return t, nil
}

func (t tokens) audiences() authenticator.Audiences { return authenticator.Audiences{t.issuer} }

// authenticate tells users by client certificate or ServiceAccount token. A request
// with neither is system:anonymous; one with a bad token is refused.
func authenticate(ca dynamiccertificates.CAContentProvider, t tokens, client kubernetes.Interface, inf informers.SharedInformerFactory) authenticator.Request {
	core := inf.Core().V1()
	// No informer for Secrets: nothing else here needs every Secret in memory, and
	// bound tokens seldom name one. An empty lister makes the getter ask the API.
	getter := serviceaccountgetter.NewGetterFromClient(client, noSecrets{}, core.ServiceAccounts().Lister(), core.Pods().Lister(), core.Nodes().Lister())
	token := serviceaccount.JWTTokenAuthenticator([]string{t.issuer}, t.keys, t.audiences(), serviceaccount.NewValidator(getter))
	known := group.NewAuthenticatedGroupAdder(union.New(
		x509.NewDynamic(ca.VerifyOptions, x509.CommonNameUserConversion),
		bearertoken.New(token),
		websocket.NewProtocolAuthenticator(token),
	))
	return union.NewFailOnError(known, anonymous.NewAuthenticator(nil))
}
