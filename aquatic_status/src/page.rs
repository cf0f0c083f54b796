//! The page, with the figures of the moment. Its script keeps them up to date; without it they stay as they
//! are, and everything else works.

use std::fmt::Write;

use crate::chart::{self, Extent, Paths};
use crate::history::Range;
use crate::report::{ClusterReport, Events, OperatorReport, Report, Row, View};
use crate::site::Assets;
use crate::text;

/// Style of the page.
pub(crate) const STYLE: &str = include_str!("assets/status.css");
/// Script of the page.
pub(crate) const SCRIPT: &str = include_str!("assets/status.js");
/// Icon of the page.
pub(crate) const ICON: &str = include_str!("assets/icon.svg");

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Rows of the table behind the charts.
const ROWS: usize = 12;

/// How a number is written; the script knows these by their letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Number,
    Rate,
    Bytes,
    Microseconds,
    Percent,
    Duration,
    Time,
}

impl Unit {
    fn letter(self) -> char {
        match self {
            Self::Number => 'n',
            Self::Rate => 'r',
            Self::Bytes => 'b',
            Self::Microseconds => 'u',
            Self::Percent => 'p',
            Self::Duration => 'd',
            Self::Time => 't',
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Number => text::number(value),
            Self::Rate => text::rate(value),
            Self::Bytes => text::bytes(value),
            Self::Microseconds => text::microseconds(value),
            Self::Percent => text::percent(value),
            Self::Duration => text::duration(value as u64),
            Self::Time => text::date_time(value as u64),
        }
    }
}

/// A number that the script replaces. `path` is where the JSON has it.
fn field(path: &str, unit: Unit, value: impl Into<Number>) -> String {
    let text = shown(unit, value.into().0);
    format!("<span data-f=\"{path}\" data-u=\"{}\">{text}</span>", unit.letter())
}

/// A number of any type, as the page shows it.
struct Number(Option<f64>);

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(Some(number as f64))
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self(Some(number))
    }
}

impl From<Option<f64>> for Number {
    fn from(number: Option<f64>) -> Self {
        Self(number)
    }
}

/// A number that there may be none of.
fn shown(unit: Unit, value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| unit.text(value))
}

/// A chart: name, column of its values in a row, and a second column that is drawn with it.
struct Chart {
    name: &'static str,
    column: usize,
    second: Option<usize>,
    unit: Unit,
}

const fn of(name: &'static str, column: usize, unit: Unit) -> Chart {
    Chart { name, column, second: None, unit }
}

const HERO: Chart =
    Chart { name: "Requests per second, with peaks", column: 1, second: Some(2), unit: Unit::Rate };

/// Charts of everybody, and those of operators. Columns are positions in [`Row`].
const CHARTS: [Chart; 11] = [
    of("UDP requests per second", 3, Unit::Rate),
    of("HTTP requests per second", 4, Unit::Rate),
    of("WebTorrent requests per second", 5, Unit::Rate),
    of("Peers", 6, Unit::Number),
    of("Torrents", 7, Unit::Number),
    of("Connections", 8, Unit::Number),
    Chart { name: "Time to answer, 99 % and median", column: 10, second: Some(9), unit: Unit::Microseconds },
    of("Refused per second", 11, Unit::Rate),
    of("Dropped per second", 12, Unit::Rate),
    of("Busiest core", 13, Unit::Percent),
    of("Memory", 14, Unit::Bytes),
];

/// Position of the connections among the columns.
const CONNECTIONS: usize = 8;

/// Renders the page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    style: String,
    script: String,
}

impl Page {
    pub(crate) fn new(assets: &Assets) -> Self {
        let (style, script) = assets.versions();
        Self { style: style.to_owned(), script: script.to_owned() }
    }

    /// The page as it is at the moment of a report, which has the history of the range.
    pub(crate) fn render(&self, report: &Report<'_>, range: Range, view: View) -> String {
        let points = report.history.as_ref().map_or(&[][..], |history| &history.points);
        let charts = Charts { range, points };
        let mut html = String::with_capacity(32 * 1024);
        self.head(&mut html, report, range);
        header(&mut html, report, view);
        html.push_str("<main>");
        hero(&mut html, report, &charts);
        key_figures(&mut html, report);
        if let Some(operator) = &report.operator {
            operator_sections(&mut html, operator);
        }
        charts.section(&mut html, report, view);
        requests(&mut html, report);
        totals_and_urls(&mut html, report);
        html.push_str("</main>");
        footer(&mut html, report, view);
        html
    }

    fn head(&self, html: &mut String, report: &Report<'_>, range: Range) {
        let Self { style, script } = self;
        put(
            html,
            format_args!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width,initial-scale=1\"><title>{rate} requests/s – aquatic</title><meta \
             name=\"description\" content=\"Status of a BitTorrent tracker\"><link rel=\"icon\" href=\"icon.svg\" \
             type=\"image/svg+xml\"><link rel=\"stylesheet\" href=\"status.css?v={style}\"><script \
             src=\"status.js?v={script}\" defer></script></head>\n<body data-range=\"{range}\">",
                rate = text::rate(report.requests.events.per_second),
                range = range.name(),
            ),
        );
    }
}

/// Appends a text. Writing to a string does not fail.
fn put(html: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = html.write_fmt(text);
}

fn header(html: &mut String, report: &Report<'_>, view: View) {
    let title = match view {
        View::Public => "aquatic",
        View::Operator => "aquatic – operator",
    };
    // A share of some minutes would say little.
    let available = field("availability_30d", Unit::Percent, report.availability_30d);
    let available = match report.time.saturating_sub(report.counted_since) {
        0..DAY => String::new(),
        _ => format!(", available {available} of the last 30 days"),
    };
    put(
        html,
        format_args!(
            "<header><h1><img src=\"icon.svg\" alt=\"\" width=\"22\" height=\"22\">{title}</h1><p class=\"up\">BitTorrent \
         tracker, up for {uptime}{available}</p><div class=\"live\"><span id=\"live\" \
         role=\"status\"></span><button id=\"pause\" type=\"button\" hidden>Pause</button></div></header>\n",
            uptime = field("uptime", Unit::Duration, report.uptime),
        ),
    );
}

fn hero(html: &mut String, report: &Report<'_>, charts: &Charts<'_>) {
    let events = &report.requests.events;
    put(
        html,
        format_args!(
            "<section class=\"hero\"><div><h2>Requests per second</h2><p class=\"big\">{now}</p><p class=\"note\">Peak of the \
         last 24 hours <b>{peak}</b></p></div>",
            now = field("requests.per_second", Unit::Rate, events.per_second),
            peak = field("requests.peak_24h", Unit::Number, events.peak_24h),
        ),
    );
    charts.figure(html, &HERO);
    html.push_str("</section>\n");
}

fn key_figures(html: &mut String, report: &Report<'_>) {
    html.push_str("<dl class=\"key\">");
    let mut pair = |name: &str, value: String, note: &str| {
        put(html, format_args!("<div><dt>{name}</dt><dd>{value}{note}</dd></div>"));
    };
    let peers = &report.peers;
    pair("Peers", field("peers.total", Unit::Number, peers.total), "");
    pair("Seeders", field("peers.seeders", Unit::Number, peers.seeders), "");
    pair("Leechers", field("peers.leechers", Unit::Number, peers.leechers), "");
    pair("Torrents", field("peers.torrents", Unit::Number, peers.torrents), "");
    if !report.connections.by.is_empty() {
        pair("Connections", field("connections.open", Unit::Number, report.connections.open), "");
    }
    for (index, latency) in report.latency.iter().enumerate() {
        let note = format!(
            "<small>99 % within {}</small>",
            field(&format!("latency.{index}.p99_us"), Unit::Microseconds, latency.p99_us)
        );
        let median = field(&format!("latency.{index}.p50_us"), Unit::Microseconds, latency.p50_us);
        pair(&format!("{} answered in", protocol(latency.protocol)), median, &note);
    }
    html.push_str("</dl>\n");
}

/// Name of a protocol.
fn protocol(name: &str) -> &str {
    match name {
        "udp" => "UDP",
        "http" => "HTTP",
        "ws" => "WebTorrent",
        other => other,
    }
}

fn family(name: &str) -> &str {
    match name {
        "ipv4" => "IPv4",
        "ipv6" => "IPv6",
        other => other,
    }
}

/// The points of a range.
struct Charts<'a> {
    range: Range,
    points: &'a [Row],
}

impl Charts<'_> {
    fn values(&self, column: usize) -> Vec<Option<f64>> {
        self.points.iter().map(|row| row.get(column).copied().flatten()).collect()
    }

    /// The charts that have something to show.
    fn shown(&self, report: &Report<'_>, view: View) -> Vec<&'static Chart> {
        let protocols = report.requests.by.iter().map(|by| by.protocol);
        let columns: Vec<usize> = protocols
            .filter_map(|protocol| ["udp", "http", "ws"].iter().position(|name| *name == protocol))
            .map(|position| 3 + position)
            .collect();
        let is_shown = |chart: &&Chart| match chart.column {
            3..=5 => columns.contains(&chart.column),
            CONNECTIONS => !report.connections.by.is_empty(),
            10 => !report.latency.is_empty(),
            11.. => view == View::Operator,
            _ => true,
        };
        CHARTS.iter().filter(is_shown).collect()
    }

    fn section(&self, html: &mut String, report: &Report<'_>, view: View) {
        html.push_str("<section><div class=\"bar\"><h2>Charts</h2><nav aria-label=\"Period of the charts\">");
        let more = if view == View::Operator { "&amp;view=operator" } else { "" };
        for range in Range::ALL {
            let current = if range == self.range { " aria-current=\"true\"" } else { "" };
            let (name, title) = (range.name(), range.title());
            put(
                html,
                format_args!("<a href=\"?range={name}{more}\" data-range=\"{name}\"{current}>{title}</a>"),
            );
        }
        html.push_str("</nav></div><div class=\"charts\">");
        let shown = self.shown(report, view);
        for chart in &shown {
            self.figure(html, chart);
        }
        html.push_str("</div>");
        self.table(html, &shown);
        html.push_str("</section>\n");
    }

    fn figure(&self, html: &mut String, chart: &Chart) {
        let Chart { name, column, second, unit } = *chart;
        let values = self.values(column);
        let second_values = second.map(|column| self.values(column));
        let extents = (Extent::of(&values), second_values.as_deref().and_then(Extent::of));
        let max = [extents.0, extents.1].iter().flatten().map(|extent| extent.max).fold(0.0, f64::max);
        let low = shown(unit, extents.0.map(|extent| extent.min));
        let last = shown(unit, extents.0.map(|extent| extent.last));
        let high = shown(unit, extents.0.map(|_| max));
        let Paths { line, area } = chart::paths(&values, max);
        let dashed = second_values.map_or_else(String::new, |values| {
            format!("<path class=\"s\" d=\"{}\"/>", chart::paths(&values, max).line)
        });
        let second = second.map_or_else(String::new, |column| format!(" data-d=\"{column}\""));
        put(
            html,
            format_args!(
                "<figure data-c=\"{column}\"{second} data-u=\"{letter}\"><figcaption><span>{name}</span> \
             <b>{last}</b></figcaption><svg viewBox=\"0 0 {w:.0} {h:.0}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{name}, {range}: lowest {low}, highest {high}, last {last}\"><path class=\"a\" \
             d=\"{area}\"/>{dashed}<path class=\"l\" d=\"{line}\"/></svg><p class=\"x\"><span>lowest {low}</span> \
             <span>highest {high}</span></p></figure>",
                letter = unit.letter(),
                range = self.range.title().to_lowercase(),
                w = chart::WIDTH,
                h = chart::HEIGHT,
            ),
        );
    }

    /// What the charts show, as a table, the newest first.
    fn table(&self, html: &mut String, small: &[&'static Chart]) {
        html.push_str(
            "<details id=\"data\"><summary>Show the figures as a table</summary><div class=\"scroll\" role=\"region\" \
             aria-label=\"Figures of the charts\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">Time (UTC)</th>",
        );
        let charts = || [&HERO].into_iter().chain(small.iter().copied());
        for chart in charts() {
            put(html, format_args!("<th scope=\"col\">{}</th>", chart.name));
        }
        html.push_str("</tr></thead><tbody>");
        let every = self.points.len().div_ceil(ROWS).max(1);
        for row in self.points.iter().rev().step_by(every) {
            let time = text::date_time(row.first().copied().flatten().unwrap_or_default() as u64);
            let time = match self.range {
                Range::Minute => time.get(11..),
                Range::Hour | Range::Day => time.get(11..16),
                Range::Month => time.get(5..16),
            };
            put(html, format_args!("<tr><th scope=\"row\">{}</th>", time.unwrap_or_default()));
            for chart in charts() {
                let value = row.get(chart.column).copied().flatten();
                put(html, format_args!("<td>{}</td>", shown(chart.unit, value)));
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div></details>");
    }
}

/// Begins a section with a table, up to its first row. It scrolls by itself where it is too wide.
fn open_table(html: &mut String, (id, title): (&str, &str), headings: &[&str]) {
    put(
        html,
        format_args!(
            "<section><h2 id=\"{id}-title\">{title}</h2><div class=\"scroll\" role=\"region\" \
             aria-labelledby=\"{id}-title\" tabindex=\"0\"><table id=\"{id}\"><thead><tr>"
        ),
    );
    for heading in headings {
        put(html, format_args!("<th scope=\"col\">{heading}</th>"));
    }
    html.push_str("</tr></thead><tbody>");
}

const CLOSE_TABLE: &str = "</tbody></table></div>";

fn row(html: &mut String, name: &str, cells: &[String]) {
    put(html, format_args!("<tr><th scope=\"row\">{name}</th>"));
    for cell in cells {
        put(html, format_args!("<td>{cell}</td>"));
    }
    html.push_str("</tr>");
}

fn requests(html: &mut String, report: &Report<'_>) {
    let headings = ["Protocol", "per second", "peak, 24 h", "last 24 h", "all time"];
    open_table(html, ("requests", "Requests by protocol"), &headings);
    let mut events = |name: &str, path: &str, events: &Events| {
        let cells = [
            field(&format!("{path}.per_second"), Unit::Rate, events.per_second),
            field(&format!("{path}.peak_24h"), Unit::Number, events.peak_24h),
            field(&format!("{path}.last_24h"), Unit::Number, events.last_24h),
            field(&format!("{path}.all_time"), Unit::Number, events.all_time),
        ];
        row(html, name, &cells);
    };
    for (index, by) in report.requests.by.iter().enumerate() {
        let name = format!("{} {}", protocol(by.protocol), family(by.family));
        events(&name, &format!("requests.by.{index}"), &by.events);
    }
    events("All", "requests", &report.requests.events);
    html.push_str(CLOSE_TABLE);
    html.push_str("</section>\n");
}

fn totals_and_urls(html: &mut String, report: &Report<'_>) {
    html.push_str("<div class=\"two\"><section><h2>Add the tracker to a torrent</h2><ul class=\"urls\">");
    for url in report.announce_urls {
        let url = text::escape(url).replace("{host}", "<span class=\"host\">HOST</span>");
        put(html, format_args!("<li><code>{url}</code></li>"));
    }
    html.push_str("</ul></section>");
    let since = format!("Since {}", text::date(report.counted_since));
    open_table(html, ("totals", &since), &["Total", "last 24 h", "all time"]);
    let mut total = |name: &str, path: &str, unit: Unit, values: (u64, u64)| {
        let cells = [
            field(&format!("{path}.last_24h"), unit, values.0),
            field(&format!("{path}.all_time"), unit, values.1),
        ];
        row(html, name, &cells);
    };
    let requests = &report.requests.events;
    let (received, sent) = (&report.traffic_bytes.received, &report.traffic_bytes.sent);
    total("Requests", "requests", Unit::Number, (requests.last_24h, requests.all_time));
    total("Refused", "refused", Unit::Number, (report.refused.last_24h, report.refused.all_time));
    total("Dropped", "dropped", Unit::Number, (report.dropped.last_24h, report.dropped.all_time));
    total("Received", "traffic_bytes.received", Unit::Bytes, (received.last_24h, received.all_time));
    total("Sent", "traffic_bytes.sent", Unit::Bytes, (sent.last_24h, sent.all_time));
    html.push_str(CLOSE_TABLE);
    html.push_str("</section></div>\n");
}

/// A bar of a share; the number is beside it.
fn bar(attribute: &str, share: f64) -> String {
    format!(
        "<svg class=\"m\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect {attribute} \
         width=\"{:.0}\" height=\"8\"/></svg>",
        (share * 100.0).clamp(0.0, 100.0)
    )
}

fn operator_sections(html: &mut String, operator: &OperatorReport) {
    html.push_str("<div class=\"two\">");
    limits(html, operator);
    cores(html, operator);
    html.push_str("</div>\n");
    if let Some(cluster) = &operator.cluster {
        nodes(html, cluster);
    }
    losses(html, operator);
}

fn nodes(html: &mut String, cluster: &ClusterReport) {
    let headings = ["Node", "state", "delay", "gaps", "own peers", "connections", "requests"];
    open_table(html, ("nodes", "Cluster"), &headings);
    for node in &cluster.nodes {
        let cells = [
            if node.live { "live" } else { "gone" }.to_owned(),
            text::microseconds(node.lag_us as f64),
            text::number(node.gaps as f64),
            text::number(node.own_peers as f64),
            text::number(node.connections as f64),
            text::number(node.requests as f64),
        ];
        row(html, &text::escape(&node.name), &cells);
    }
    html.push_str(CLOSE_TABLE);
    let class = if cluster.warn { "note warn" } else { "note" };
    let (about, path) = (text::escape(&cluster.text), "operator.cluster");
    put(
        html,
        format_args!(
            "<p class=\"{class}\" id=\"cluster\">{about}</p><p class=\"note\">All nodes: {} requests, {} completed \
             downloads</p></section>\n",
            field(&format!("{path}.requests"), Unit::Number, cluster.requests),
            field(&format!("{path}.completed"), Unit::Number, cluster.completed),
        ),
    );
}

fn limits(html: &mut String, operator: &OperatorReport) {
    open_table(html, ("limits", "Limits"), &["Limit", "used", "of", "share"]);
    for (index, limit) in operator.limits.iter().enumerate() {
        let unit = if limit.unit == "bytes" { Unit::Bytes } else { Unit::Number };
        let path = format!("operator.limits.{index}");
        let cells = [
            field(&format!("{path}.used"), unit, limit.used),
            field(&format!("{path}.limit"), unit, limit.limit),
            bar(&format!("data-l=\"{path}\""), limit.used as f64 / limit.limit.max(1) as f64),
        ];
        row(html, limit.name, &cells);
    }
    html.push_str(CLOSE_TABLE);
    let class = if operator.open_breakers.is_empty() && operator.degradation.is_empty() {
        "note"
    } else {
        "note warn"
    };
    put(html, format_args!("<p class=\"{class}\" id=\"degraded\">{}</p>", degraded(operator)));
    if let Some(certificate) = &operator.certificate {
        let class = if certificate.warn { "note warn" } else { "note" };
        let text = text::escape(&certificate.text);
        put(html, format_args!("<p class=\"{class}\" id=\"certificate\">{text}</p>"));
    }
    html.push_str("</section>");
}

/// What the tracker does not do at the moment.
fn degraded(operator: &OperatorReport) -> String {
    let breakers = operator.open_breakers.iter();
    let breakers = breakers
        .map(|open| format!("Refused by a breaker: {} {}. ", protocol(open.protocol), family(open.family)));
    let steps = operator.degradation.iter();
    let steps = steps.map(|step| {
        format!(
            "Not stored for want of memory: {} on {} core(s). ",
            step.without.replace('_', " "),
            step.cores
        )
    });
    let text: String = breakers.chain(steps).collect();
    if text.is_empty() { "Nothing is degraded".to_owned() } else { text }
}

fn cores(html: &mut String, operator: &OperatorReport) {
    open_table(html, ("cores", "Cores"), &["Core", "busy", "delay", "load"]);
    for (index, core) in operator.cores.iter().enumerate() {
        let path = format!("operator.cores.{index}");
        let cells = [
            field(&format!("{path}.busy"), Unit::Percent, core.busy),
            field(&format!("{path}.lag_us"), Unit::Microseconds, core.lag_us),
            bar(&format!("data-f=\"{path}.busy\""), core.busy),
        ];
        row(html, &format!("Core {}", core.core), &cells);
    }
    html.push_str(CLOSE_TABLE);
    put(
        html,
        format_args!(
            "<p class=\"note\">Overloaded: {} core(s). Limiting rates: {} core(s). Memory of the process: {}</p></section>",
            field("operator.overloaded_cores", Unit::Number, operator.overloaded_cores),
            field("operator.rate_limiting_cores", Unit::Number, operator.rate_limiting_cores),
            field("operator.memory_bytes", Unit::Bytes, operator.memory_bytes),
        ),
    );
}

fn losses(html: &mut String, operator: &OperatorReport) {
    let headings = ["What", "Where and why", "per second", "since start"];
    open_table(html, ("losses", "Refused, dropped and lost, by reason"), &headings);
    for loss in &operator.losses {
        let labels: Vec<&str> = loss.labels.values().filter_map(|value| value.as_str()).collect();
        let cells = [
            labels.join(" ").replace('_', " "),
            text::rate(loss.per_second),
            text::number(loss.total as f64),
        ];
        row(html, &loss.what.replace('_', " "), &cells);
    }
    html.push_str(CLOSE_TABLE);
    html.push_str("</section>\n");
}

fn footer(html: &mut String, report: &Report<'_>, view: View) {
    let (query, program) = match &report.operator {
        Some(operator) if view == View::Operator => ("?view=operator", operator.program),
        _ => ("", ""),
    };
    put(
        html,
        format_args!(
            "<footer><p><span>As of {time} UTC</span> <a href=\"stats.json{query}\">JSON</a> <span>{program}</span></p><noscript><p>The \
         figures do not change by themselves without a script. <a href=\"\">Load them again</a></p></noscript></footer></body></html>\n",
            time = field("time", Unit::Time, report.time),
        ),
    );
}
