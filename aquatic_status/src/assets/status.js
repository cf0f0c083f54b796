// Live figures: a stream of events, or the same figures every few seconds where there is no stream. Without this
// script the page shows the figures of the moment at which it was loaded.
"use strict";
(() => {
  const POLL = 5000;
  const WIDTH = 600, HEIGHT = 100, TOP = 4;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const query = new URLSearchParams(location.search);
  const view = query.get("view") === "operator" ? "view=operator" : "";
  const live = one("#live"), button = one("#pause");
  const dataTable = one("#data");
  let range = document.body.dataset.range;
  let columns = [], points = [], step = 1;
  let stream = null, poll = 0, paused = false, lastSecond = 0;

  // Numbers as people read them; text.rs has the same functions.
  const three = (v) => v < 9.995 ? v.toFixed(2) : v < 99.95 ? v.toFixed(1) : v.toFixed(0);
  const grouped = (v) => String(Math.round(v)).replace(/\B(?=(\d{3})+$)/g, ",");
  const number = (v) => {
    for (const [size, from, unit] of [[1e12, 1e12, "T"], [1e9, 1e9, "G"], [1e6, 1e7, "M"]]) {
      if (v >= from) return three(v / size) + " " + unit;
    }
    return grouped(Math.max(v, 0));
  };
  const bytes = (v) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    while (v >= 999.5 && unit < 5) { v /= 1024; unit++; }
    return (unit ? three(v) : v.toFixed(0)) + " " + units[unit];
  };
  const microseconds = (v) =>
    v < 999.5 ? (v < 99.95 ? three(v) : v.toFixed(0)) + " µs"
    : v < 999500 ? three(v / 1e3) + " ms" : three(v / 1e6) + " s";
  const duration = (s) => {
    const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
    return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s % 60} s` : `${s} s`;
  };
  const units = {
    n: number,
    r: (v) => v > 0 && v < 9.95 ? v.toFixed(1) : number(v),
    b: bytes,
    u: microseconds,
    p: (v) => v > .99 && v < 1 ? (v * 100).toFixed(2) + " %" : (v * 100).toFixed(0) + " %",
    d: duration,
    t: (v) => new Date(v * 1000).toISOString().slice(0, 19).replace("T", " "),
  };

  const find = (data, path) => path.split(".").reduce((value, key) => value?.[key], data);
  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  const showFields = (data) => {
    for (const element of all("span[data-f]")) {
      const value = find(data, element.dataset.f);
      write(element, value == null ? "–" : units[element.dataset.u](value));
    }
    for (const rect of all("rect[data-f]")) {
      rect.setAttribute("width", Math.min(100, 100 * find(data, rect.dataset.f) || 0));
    }
    for (const rect of all("rect[data-l]")) {
      const limit = find(data, rect.dataset.l);
      if (limit) rect.setAttribute("width", Math.min(100, 100 * limit.used / limit.limit));
    }
    document.title = units.r(data.requests.per_second) + " requests/s – aquatic";
    if (data.operator) showOperator(data.operator);
  };

  const cell = (row, name, text) => {
    const element = row.appendChild(document.createElement(name));
    element.textContent = text;
    if (name === "th") element.scope = "row";
  };

  const showOperator = (data) => {
    const protocols = { udp: "UDP", http: "HTTP", ws: "WebTorrent", ipv4: "IPv4", ipv6: "IPv6" };
    const degraded = [
      ...data.open_breakers.map((open) => `Refused by a breaker: ${protocols[open.protocol]} ${protocols[open.family]}. `),
      ...data.degradation.map((step) =>
        `Not stored for want of memory: ${step.without.replaceAll("_", " ")} on ${step.cores} core(s). `),
    ];
    const element = one("#degraded");
    write(element, degraded.join("") || "Nothing is degraded");
    element.classList.toggle("warn", degraded.length > 0);
    if (data.certificate) {
      const certificate = one("#certificate");
      write(certificate, data.certificate.text);
      certificate.classList.toggle("warn", data.certificate.warn);
    }
    if (data.cluster && one("#cluster")) {
      const about = one("#cluster");
      write(about, data.cluster.text);
      about.classList.toggle("warn", data.cluster.warn);
      one("#nodes tbody").replaceChildren(...data.cluster.nodes.map((node) => {
        const row = document.createElement("tr");
        cell(row, "th", node.name);
        cell(row, "td", node.live ? "live" : "gone");
        cell(row, "td", microseconds(node.lag_us));
        for (const key of ["gaps", "own_peers", "connections", "requests"]) cell(row, "td", number(node[key]));
        return row;
      }));
    }
    const body = one("#losses tbody");
    body.replaceChildren(...data.losses.map((loss) => {
      const row = document.createElement("tr");
      cell(row, "th", loss.what.replaceAll("_", " "));
      cell(row, "td", Object.values(loss.labels).join(" ").replaceAll("_", " "));
      cell(row, "td", units.r(loss.per_second));
      cell(row, "td", number(loss.total));
      return row;
    }));
  };

  // Charts.
  const paths = (values, max) => {
    const width = WIDTH / (Math.max(values.length, 2) - 1);
    let line = "", area = "", first = null, last = 0, y = "", length = 0;
    const end = () => {
      if (first === null) return;
      if (length === 1) line += `L${(first + 2).toFixed(0)} ${y}`;
      area += `L${last.toFixed(0)} ${HEIGHT}Z`;
      first = null;
    };
    values.forEach((value, index) => {
      if (value == null) return end();
      last = index * width;
      y = (HEIGHT - (max > 0 ? Math.min(1, Math.max(0, value / max)) : 0) * (HEIGHT - TOP)).toFixed(1);
      if (first === null) {
        first = last;
        length = 0;
        area += `M${last.toFixed(0)} ${HEIGHT}`;
        line += `M${last.toFixed(0)} ${y}`;
      } else {
        line += `L${last.toFixed(0)} ${y}`;
      }
      length++;
      area += `L${last.toFixed(0)} ${y}`;
    });
    end();
    return [line, area];
  };

  const showCharts = () => {
    for (const figure of all("figure[data-c]")) {
      const { c, d, u } = figure.dataset;
      const values = points.map((point) => point[c]);
      const second = d ? points.map((point) => point[d]) : [];
      const present = values.filter((value) => value != null);
      const max = Math.max(0, ...present, ...second.filter((value) => value != null));
      const [line, area] = paths(values, max);
      figure.querySelector(".l").setAttribute("d", line);
      figure.querySelector(".a").setAttribute("d", area);
      if (d) figure.querySelector(".s").setAttribute("d", paths(second, max)[0]);
      const show = (value) => value == null || !isFinite(value) ? "–" : units[u](value);
      const low = show(Math.min(...present)), high = show(max), now = show(present.at(-1));
      write(figure.querySelector("b"), now);
      const [left, right] = all(".x span", figure);
      write(left, "lowest " + low);
      write(right, "highest " + high);
      const name = figure.querySelector("figcaption span").textContent;
      const label = `${name}, ${one("nav [aria-current]").textContent.toLowerCase()}: lowest ${low}, highest ${high}, last ${now}`;
      figure.querySelector("svg").setAttribute("aria-label", label);
    }
    if (dataTable.open) showTable();
  };

  const showTable = () => {
    const charts = all("figure[data-c]");
    const every = Math.ceil(points.length / 12);
    const rows = points.filter((_, index) => (points.length - 1 - index) % every === 0).reverse();
    one("#data tbody").replaceChildren(...rows.map((point) => {
      const row = document.createElement("tr");
      const time = units.t(point[0]);
      cell(row, "th", step < 60 ? time.slice(11) : step < 3600 ? time.slice(11, 16) : time.slice(5, 16));
      for (const { dataset: { c, u } } of charts) cell(row, "td", point[c] == null ? "–" : units[u](point[c]));
      return row;
    }));
  };

  const address = (name, more) => name + "?" + [view, more].filter(Boolean).join("&");

  const load = async () => {
    const response = await fetch(address("stats.json", "range=" + range), { cache: "no-cache" });
    if (!response.ok) throw new Error(response.status);
    const data = await response.json();
    ({ columns, points, step } = data.history);
    showFields(data);
    showCharts();
    lastSecond = data.time;
  };

  // Puts the newest point where it belongs, and those that are missing in between.
  const add = (data) => {
    showFields(data);
    if (!points.length) return;
    const newest = data.newest[range];
    let last = points.at(-1);
    for (let time = last[0] + step; time < newest[0] && points.length < 1000; time += step) {
      points.push([time, ...columns.slice(1).map(() => null)]);
    }
    last = points.at(-1);
    const length = points.length;
    if (newest[0] === last[0]) points[length - 1] = newest;
    else if (newest[0] > last[0]) points.push(newest);
    const most = { minute: 60, hour: 60, day: 96, month: 120 }[range];
    points = points.slice(-most);
    showCharts();
    lastSecond = data.time;
  };

  // Connections.
  const state = (text) => write(live, text);
  const close = () => {
    stream?.close();
    stream = null;
    clearTimeout(poll);
    poll = 0;
  };
  const pollLater = () => {
    clearTimeout(poll);
    poll = setTimeout(async () => {
      try {
        await load();
        state(`Every ${POLL / 1000} s`);
      } catch {
        state("No connection, trying again");
      }
      if (!paused && !document.hidden) pollLater();
    }, POLL);
  };
  const open = async () => {
    close();
    try {
      await load();
    } catch {
      state("No connection, trying again");
      return pollLater();
    }
    if (paused || document.hidden) return;
    stream = new EventSource(address("events"));
    stream.onopen = () => state("Live");
    stream.onmessage = (event) => {
      const data = JSON.parse(event.data);
      // Not what has been loaded already; but a clock may have been set back.
      if (data.time < lastSecond && data.time >= lastSecond - 60) return;
      // What has been loaded may be seconds old, if nobody had asked for it: by now it is up to date.
      const isBehind = points.length && data.newest[range][0] > points.at(-1)[0] + step;
      if (isBehind) load().catch(() => add(data));
      else add(data);
    };
    stream.onerror = () => {
      if (stream?.readyState === EventSource.CLOSED) {
        // Refused: there are too many viewers.
        close();
        state(`Every ${POLL / 1000} s`);
        pollLater();
      } else {
        state("No connection, trying again");
      }
    };
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      close();
      state("Paused");
    } else {
      open();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (paused) return;
    if (document.hidden) close();
    else open();
  });
  for (const link of all("nav a")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      range = link.dataset.range;
      all("nav a").forEach((other) => other.removeAttribute("aria-current"));
      link.setAttribute("aria-current", "true");
      history.replaceState(null, "", link.href);
      points = [];
      if (paused) load().catch(() => state("No connection"));
      else open();
    });
  }
  dataTable.addEventListener("toggle", () => dataTable.open && points.length && showTable());

  // Announce URLs.
  for (const host of all(".host")) host.textContent = location.hostname;
  for (const item of all(".urls li")) {
    const code = item.querySelector("code");
    const copy = item.appendChild(document.createElement("button"));
    copy.type = "button";
    copy.textContent = "Copy";
    copy.setAttribute("aria-label", "Copy " + code.textContent);
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        // Without TLS, pages may not write to the clipboard by themselves.
        const selection = getSelection();
        selection.selectAllChildren(code);
        document.execCommand("copy");
        selection.removeAllRanges();
      }
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
  }

  if (!document.hidden) open();
})();
