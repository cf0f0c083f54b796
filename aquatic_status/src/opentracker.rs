//! Figures in the shape of opentracker's `/stats?mode=everything`, for dashboards that read it. What has no
//! counterpart here (livesync, renewals, stalls) is 0.

use crate::report::Moment;

/// The document. Torrents, peers and seeders are those of UDP and HTTP and of WebTorrent together.
pub(crate) fn everything(moment: &Moment<'_>) -> String {
    let figures = moment.figures;
    let (seeders, leechers) = figures.peers();
    let [udp, tcp] = figures.actions;
    let (torrents, peers) = (figures.torrents(), seeders + leechers);
    let overall = udp.connects + udp.announces + udp.scrapes;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<stats>\n  <tracker_id>0</tracker_id>\n  \
         <version>aquatic</version>\n  <uptime>{uptime}</uptime>\n  <torrents>\n    \
         <count_mutex>{torrents}</count_mutex>\n    <count_iterator>{torrents}</count_iterator>\n  </torrents>\n  \
         <peers>\n    <count>{peers}</count>\n  </peers>\n  <seeds>\n    <count>{seeders}</count>\n  </seeds>\n  \
         <completed>\n    <count>{completed}</count>\n  </completed>\n  <connections>\n    <tcp>\n      \
         <accept>{accept}</accept>\n      <announce>{tcp_announces}</announce>\n      \
         <scrape>{tcp_scrapes}</scrape>\n    </tcp>\n    <udp>\n      <overall>{overall}</overall>\n      \
         <connect>{connects}</connect>\n      <announce>{announces}</announce>\n      <scrape>{scrapes}</scrape>\n      \
         <missmatch>{mismatches}</missmatch>\n    </udp>\n    <livesync>\n      <count>0</count>\n    </livesync>\n  \
         </connections>\n  <debug>\n    <renew>\n    </renew>\n    <http_error>\n    </http_error>\n    \
         <mutex_stall>\n      <count>0</count>\n    </mutex_stall>\n  </debug>\n</stats>\n",
        uptime = moment.uptime,
        completed = figures.completed,
        accept = figures.accepted,
        tcp_announces = tcp.announces,
        tcp_scrapes = tcp.scrapes,
        connects = udp.connects,
        announces = udp.announces,
        scrapes = udp.scrapes,
        mismatches = figures.mismatches,
    )
}
