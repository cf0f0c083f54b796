/// What a client says about itself in an announce (BEP 3, BEP 15, BEP 21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// A regular announce; also every event this tracker does not know.
    #[default]
    None,
    /// The first announce of a session.
    Started,
    /// The client leaves the swarm.
    Stopped,
    /// The client has just become a seeder.
    Completed,
    /// The client has all it wants but not all there is (BEP 21): kept as a leecher.
    Paused,
}
