//! Table of the nodes of the cluster: runs, replacement by younger runs, and nodes that are gone.
