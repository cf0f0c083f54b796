//! Load test for HTTP and HTTPS trackers. Here belongs what is particular to that protocol: connections and
//! messages. Population, pacing, histograms and reports belong to `aquatic_load_engine`. The load test is not built
//! yet: this member only reserves its room in the workspace.
