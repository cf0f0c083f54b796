//! Reading and writing of the wire format.
