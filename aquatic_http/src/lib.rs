//! The HTTP and HTTPS service of the tracker. Here belong its configuration, its pure request handler and the
//! thin layer that connects the handler to `aquatic_runtime`. Sockets, TLS, timers and cores belong to
//! `aquatic_runtime`, swarms to `aquatic_swarm`, bytes on the wire to `aquatic_http_protocol`. The service is
//! not built yet: this member only reserves its room in the workspace.
