// Keeps an open page up to date: takes what the server has made again and puts in what changed. What somebody has opened,
// typed or focused stays. Without this file every page can be read and used; it is only not up to date.
(() => {
  "use strict";
  const body = document.body;
  const living = document.getElementById("living");
  const button = document.getElementById("hold");

  // Whether somebody is about to act in it: then it stays as it is, so that no action comes to be of something else.
  const is_at_work = (node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) return false;
    const form = document.activeElement && document.activeElement.closest("form");
    return node.querySelector("details.act[open]") !== null || (Boolean(form) && node.contains(form));
  };
  const has_focus = (node) => document.activeElement !== body && node.contains(document.activeElement);
  const may_go = (node) => !is_at_work(node) && !has_focus(node);

  // What a part of a list is about: who goes through the page by keyboard stays with it, wherever it comes to stand.
  const name_of = (node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) return null;
    if (node.id) return `#${node.id}`;
    if (node.matches("section[aria-label]")) return node.getAttribute("aria-label");
    const about = node.matches("tr, li, details.act") && node.querySelector("a[href], form[action]");
    if (!about) return null;
    if (about.nodeName === "A") return about.getAttribute("href");
    const hidden = [...about.querySelectorAll("input[type=hidden]")].map((input) => `${input.name}=${input.value}`);
    return [about.getAttribute("action"), ...hidden].join("&");
  };

  // Makes `old` like `wanted`, touching only what differs. Returns what stands in its place.
  const become = (old, wanted) => {
    if (old.nodeType !== wanted.nodeType || old.nodeName !== wanted.nodeName || old.id !== wanted.id) {
      if (!may_go(old)) return old;
      const made = wanted.cloneNode(true);
      old.replaceWith(made);
      return made;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== wanted.nodeValue) old.nodeValue = wanted.nodeValue;
      return old;
    }
    if (old.hasAttribute("data-kept")) {
      become_attributes(old, wanted);
      return old;
    }
    // A row with an open action, and a form that somebody fills in, are theirs.
    if (old.matches("li, tr, form, details.act[open]") && (old.matches("[open]") || is_at_work(old))) return old;
    become_attributes(old, wanted);
    become_children(old, wanted);
    return old;
  };

  // Those with a name by their names, the others by their order. What has the focus is not moved, for that would take it away:
  // the others are moved around it.
  const become_children = (old, wanted) => {
    const named = new Map();
    const others = [];
    for (const child of old.childNodes) {
      const name = name_of(child);
      if (name === null) others.push(child);
      else if (!named.has(name)) named.set(name, child);
    }
    const gone = new Set(old.childNodes);
    const children = [...wanted.childNodes].map((child) => {
      const name = name_of(child);
      const mate = name === null ? others.shift() : named.get(name);
      if (mate === undefined || !gone.delete(mate)) return child.cloneNode(true);
      return become(mate, child);
    });
    for (const child of gone) {
      if (may_go(child)) child.remove();
    }
    let next = old.firstChild;
    for (const child of children) {
      if (child === next || has_focus(child)) next = child.nextSibling;
      else old.insertBefore(child, next);
    }
  };

  const become_attributes = (old, wanted) => {
    for (const { name, value } of wanted.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      // Whether it is open is the visitor's doing.
      if (!wanted.hasAttribute(name) && name !== "open" && name !== "data-kept") old.removeAttribute(name);
    }
  };

  const show = (html) => {
    const page = new DOMParser().parseFromString(`<div id="living">${html}</div>`, "text/html");
    become(living, page.getElementById("living"));
    document.dispatchEvent(new Event("streamhand:changed"));
  };

  let events = null;
  let again = null;

  const say = (word, state) => {
    button.querySelector(".word").textContent = word;
    button.dataset.state = state;
  };

  const follow = () => {
    const page = location.pathname.slice(body.dataset.prefix.length) || "/";
    const query = new URLSearchParams(location.search);
    query.delete("said");
    const whole = query.size ? `${page}?${query}` : page;
    const of = new URLSearchParams({ page: whole });
    events = new EventSource(`${body.dataset.prefix}/live?${of}`);
    events.addEventListener("open", () => say("Live", "live"));
    events.addEventListener("main", (event) => show(event.data));
    events.addEventListener("error", () => {
      say("Away", "away");
      if (events && events.readyState === EventSource.CLOSED) again = setTimeout(follow, 5000);
    });
  };

  const leave = () => {
    clearTimeout(again);
    if (events) events.close();
    events = null;
  };

  if (body.dataset.live === "yes" && living && button) {
    document.getElementById("alive").hidden = false;
    let held = false;
    button.addEventListener("click", () => {
      held = !held;
      button.setAttribute("aria-pressed", String(held));
      leave();
      if (held) say("Held", "held");
      else follow();
    });
    // Nobody looks at a page in the background.
    document.addEventListener("visibilitychange", () => {
      if (held) return;
      leave();
      if (!document.hidden) follow();
    });
    window.addEventListener("pagehide", leave);
    follow();
  }

  // Charts that can be looked into, in place of the pictures.
  const drawn = new WeakMap();
  const color = (name) => getComputedStyle(body).getPropertyValue(name).trim();
  const said = (value, unit) => {
    if (value == null) return "–";
    if (unit === "seconds") {
      if (value >= 7200) return `${(value / 3600).toFixed(1)} h`;
      if (value >= 120) return `${(value / 60).toFixed(1)} min`;
      if (value >= 1) return `${value.toFixed(1)} s`;
      if (value >= 0.001) return `${(value * 1e3).toFixed(0)} ms`;
      return value > 0 ? `${(value * 1e6).toFixed(0)} µs` : "0";
    }
    if (value === 0) return "0";
    return `${value >= 10 ? value.toFixed(0) : value.toFixed(value >= 1 ? 1 : 2)}/s`;
  };

  const draw = (figure) => {
    if (typeof uPlot === "undefined") return;
    const text = figure.dataset.chart;
    const known = drawn.get(figure);
    if (known && known.text === text) return;
    const chart = JSON.parse(text);
    const data = [chart.times, ...chart.series.map((one) => one.values)];
    if (known && known.series === chart.series.length) {
      known.text = text;
      known.marks = chart.marks;
      known.plot.setData(data);
      return;
    }
    const place = figure.querySelector(".plot");
    if (chart.times.length < 2) return;
    const picture = place.querySelector("svg").getAttribute("aria-label");
    const state = { text, series: chart.series.length, marks: chart.marks };
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    const two = (number) => String(number).padStart(2, "0");
    const date = (at) => new Date(at * 1000);
    const day = (at) => `${two(date(at).getUTCMonth() + 1)}-${two(date(at).getUTCDate())}`;
    const minute = (at) => `${two(date(at).getUTCHours())}:${two(date(at).getUTCMinutes())}`;
    // By UTC, as everything here.
    const ticked = (plot, ticks) => {
      const span = plot.scales.x.max - plot.scales.x.min;
      return ticks.map((at) => {
        if (span > 2 * 86400) return day(at);
        return span < 600 ? `${minute(at)}:${two(date(at).getUTCSeconds())}` : minute(at);
      });
    };
    const options = {
      tzDate: (at) => uPlot.tzDate(date(at), "Etc/UTC"),
      width: place.clientWidth,
      height: 200,
      cursor: { y: false },
      legend: { show: true, live: true },
      scales: { x: { time: true } },
      axes: [{ ...axis, values: ticked }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => said(tick, chart.unit)) }],
      series: [
        { label: "Time (UTC)", value: (_, at) => (at == null ? "–" : date(at).toISOString().slice(0, 19).replace("T", " ")) },
        ...chart.series.map((one, at) => ({
          label: one.name,
          stroke: color(`--series-${at + 1}`),
          width: 2,
          spanGaps: false,
          points: { show: false },
          value: (_, value) => said(value, chart.unit),
        })),
      ],
      hooks: {
        draw: [(plot) => {
          const context = plot.ctx;
          context.save();
          context.strokeStyle = color("--ink");
          context.setLineDash([4, 4]);
          for (const [at] of state.marks) {
            const x = Math.round(plot.valToPos(at, "x", true));
            if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
            context.beginPath();
            context.moveTo(x, plot.bbox.top);
            context.lineTo(x, plot.bbox.top + plot.bbox.height);
            context.stroke();
          }
          context.restore();
        }],
      },
    };
    place.textContent = "";
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", picture);
    figure.classList.add("drawn");
    state.plot = new uPlot(options, data, place);
    drawn.set(figure, state);
  };

  const drawAll = () => document.querySelectorAll("figure.chart").forEach(draw);
  const drawAnew = () => {
    document.querySelectorAll("figure.chart").forEach((figure) => {
      const known = drawn.get(figure);
      if (!known) return;
      const place = figure.querySelector(".plot");
      known.plot.setSize({ width: place.clientWidth, height: 200 });
    });
  };
  let later = null;
  window.addEventListener("resize", () => {
    clearTimeout(later);
    later = setTimeout(drawAnew, 100);
  });
  document.addEventListener("streamhand:changed", drawAll);
  drawAll();
})();
