//! Objects to [`World`](super::World): the only file of `policy` that imports `api`. Fails closed.
