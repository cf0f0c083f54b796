//! Parts of the hash space, and the nodes that hold each.
