//! What the main thread prepares for the tracker of each core.

use std::sync::Arc;
use std::time::Duration;

use aquatic_common::config::{AccessListConfig, CleaningConfig, LimitsConfig};
use aquatic_common::{ConfigurationError, Steering};
use aquatic_metrics::CoreMetrics;
use aquatic_runtime::{CoreStates, Engine, Secrets};
use aquatic_swarm::{HashKey, Shard, ShardLimits};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::access_list::{AccessListReloader, SharedAccessList};
use crate::admission::Admission;
use crate::expiry::ExpirySettings;
use crate::interval::IntervalPolicy;
use crate::memory::CoreBudget;
use crate::peer_rules::PeerRules;
use crate::snapshot::Restored;
use crate::stretch::Stretch;
use crate::tracker::Tracker;

/// The settings that the tracker's state depends on.
#[derive(Clone, Debug)]
pub struct TrackerSettings {
    /// Which torrents are served.
    pub access_list: AccessListConfig,
    /// How long peers are remembered.
    pub cleaning: CleaningConfig,
    /// How much is remembered.
    pub limits: LimitsConfig,
    /// Which addresses and ports peers may have.
    pub rules: PeerRules,
    /// When clients come back.
    pub interval: IntervalPolicy,
    /// How far the interval is stretched.
    pub stretch: Stretch,
}

/// Everything the tracker of a core is made from; the same for all cores.
#[derive(Clone, Debug)]
pub struct TrackerSeed {
    steering: Steering,
    access_list: Arc<SharedAccessList>,
    shard: ShardLimits,
    rules: PeerRules,
    hash_key: [u8; 16],
    interval: IntervalPolicy,
    stretch: Stretch,
    expiry: ExpirySettings,
    /// What the stores of each core may take.
    budgets: Option<Arc<[CoreBudget]>>,
    trackers: CoreStates<Tracker>,
    restored: Restored,
}

impl TrackerSeed {
    /// Reads the access list and has the engine keep it up to date.
    ///
    /// # Errors
    /// An access list that cannot be used, with what to do about it.
    pub fn prepare(settings: &TrackerSettings, engine: &mut Engine) -> anyhow::Result<Self> {
        let access_list = SharedAccessList::load(&settings.access_list).map_err(ConfigurationError::new)?;
        let (reloader, requests) = AccessListReloader::new(Arc::clone(&access_list), engine.registry());
        engine.add_side_thread("aquatic-lists", move || reloader.run());
        engine.add_periodic(requests);
        Ok(Self::new(settings, engine.secrets(), engine.cores(), access_list))
    }

    /// The seed for this many cores.
    #[must_use]
    pub fn new(
        settings: &TrackerSettings,
        secrets: &Secrets,
        cores: usize,
        access_list: Arc<SharedAccessList>,
    ) -> Self {
        Self {
            steering: Steering::new(cores, secrets.derive("aquatic steering 1")),
            access_list,
            shard: ShardLimits::share_of(&settings.limits, cores),
            rules: settings.rules.clone(),
            hash_key: secrets.derive("aquatic torrent table 1"),
            interval: settings.interval,
            stretch: settings.stretch,
            expiry: ExpirySettings {
                interval: Duration::from_secs(settings.cleaning.interval.into()),
                max_peer_age: settings.cleaning.max_peer_age,
            },
            budgets: None,
            trackers: CoreStates::new(cores),
            restored: Restored::default(),
        }
    }

    /// Bounds the memory that torrents and peers of each core may take.
    #[must_use]
    pub fn with_budgets(self, budgets: Option<Arc<[CoreBudget]>>) -> Self {
        Self { budgets, ..self }
    }

    /// What the stores of each core may take, if it is bounded.
    #[must_use]
    pub fn budgets(&self) -> Option<Arc<[CoreBudget]>> {
        self.budgets.clone()
    }

    /// Which core owns which torrent; listeners bind their sockets by it.
    #[must_use]
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Whether peers of a process before this one have been taken in.
    #[must_use]
    pub fn restored(&self) -> &Restored {
        &self.restored
    }

    /// Where the trackers of sleeping cores are.
    #[must_use]
    pub fn trackers(&self) -> &CoreStates<Tracker> {
        &self.trackers
    }

    /// The access list of the process.
    #[must_use]
    pub fn access_list(&self) -> &Arc<SharedAccessList> {
        &self.access_list
    }

    /// Returns the settings of expiry.
    #[must_use]
    pub fn expiry(&self) -> ExpirySettings {
        self.expiry
    }

    /// The state of one core, without any torrent. To be called on that core's thread, where its memory then
    /// is.
    #[must_use]
    pub fn tracker(&self, index: usize, seed: u64, metrics: &CoreMetrics) -> Tracker {
        let shard = Shard::new(self.shard, HashKey(self.hash_key));
        let admission = Admission::new(Arc::clone(&self.access_list));
        let rng = SmallRng::seed_from_u64(seed);
        let mut tracker = Tracker::new(
            (index, self.steering),
            shard,
            (admission, self.rules.clone()),
            self.interval,
            rng,
            metrics,
        );
        tracker.set_stretch(self.stretch);
        tracker.with_budget(self.budgets.as_ref().and_then(|budgets| budgets.get(index).cloned()))
    }
}
