// Package kubeconfig puts a cluster into a user's kubeconfig, and takes it out again.
//
// What else is in the file stays. It makes no certificates and talks to no cluster.
package kubeconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Merge adds the cluster, user and context called name to the file and makes the context current. The current
// namespace of an older context of the name is kept. source is a kubeconfig with one context. A new file and its
// folder belong to uid and gid.
func Merge(file, name string, source []byte, uid, gid int) error {
	from, err := clientcmd.Load(source)
	if err != nil {
		return fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	into, existed, err := load(file)
	if err != nil {
		return err
	}
	context, ok := from.Contexts[from.CurrentContext]
	if !ok {
		return errors.New("the cluster's kubeconfig has no current context")
	}
	namespace := context.Namespace
	if old := into.Contexts[name]; old != nil {
		namespace = old.Namespace
	}
	into.Clusters[name] = from.Clusters[context.Cluster]
	into.AuthInfos[name] = from.AuthInfos[context.AuthInfo]
	into.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	into.CurrentContext = name
	if err := write(file, into); err != nil {
		return err
	}
	if existed {
		return nil
	}
	if err := errors.Join(os.Chown(filepath.Dir(file), uid, gid), os.Chown(file, uid, gid)); err != nil {
		return fmt.Errorf("give the kubeconfig to its user: %w", err)
	}
	return nil
}

// Remove takes the cluster, user and context called name out of the file. A file that does not exist, or does not
// have them, is no error; one that is left empty is removed.
func Remove(file, name string) error {
	config, existed, err := load(file)
	if err != nil || !existed {
		return err
	}
	if config.Contexts[name] == nil && config.Clusters[name] == nil {
		return nil
	}
	delete(config.Clusters, name)
	delete(config.AuthInfos, name)
	delete(config.Contexts, name)
	if config.CurrentContext == name {
		config.CurrentContext = ""
	}
	if len(config.Contexts)+len(config.Clusters)+len(config.AuthInfos) == 0 {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove the empty kubeconfig: %w", err)
		}
		return nil
	}
	return write(file, config)
}

func load(file string) (config *api.Config, existed bool, err error) {
	config, err = clientcmd.LoadFromFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return api.NewConfig(), false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("mend or move away the kubeconfig %s, or choose another with --kubeconfig: %w", file, err)
	}
	return config, true, nil
}

// write keeps the owner of an existing file, because it writes into it.
func write(file string, config *api.Config) error {
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}
