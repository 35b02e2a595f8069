// Package images keeps the images that a user loads, and serves them to containerd as a registry mirror.
package images
