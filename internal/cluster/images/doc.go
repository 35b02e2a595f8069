// Package images keeps the images that a user loads, and serves them to containerd as a registry mirror.
//
// The store is a folder of blobs in OCI layout, our own rather than containerd's content store: it needs no
// running containerd, does not depend on containerd's version or on its garbage collection, and one mechanism,
// the mirror, then serves every pull policy. An image in use is on disk twice; that is the price.
//
// Layers of `docker save` archives are kept uncompressed, as they come: compressing them would take most of the
// time of a load and of the first pull.
//
// It does not pull: containerd asks this mirror first and the image's own registry after it.
package images
