// Keeps an open page up to date: takes what the server has made again and puts in what changed. What somebody has opened,
// typed or focused stays. Without this file every page can be read and used; it is only not up to date.
(() => {
  "use strict";
  const body = document.body;
  const living = document.getElementById("living");
  const button = document.getElementById("hold");

  // Makes `old` like `wanted`, touching only what differs.
  const become = (old, wanted) => {
    if (old.nodeType !== wanted.nodeType || old.nodeName !== wanted.nodeName || old.id !== wanted.id) {
      old.replaceWith(wanted.cloneNode(true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== wanted.nodeValue) old.nodeValue = wanted.nodeValue;
      return;
    }
    if (old.hasAttribute("data-kept")) {
      become_attributes(old, wanted);
      return;
    }
    // A form that somebody fills in is theirs.
    if (old.matches("form") && old.contains(document.activeElement)) return;
    become_attributes(old, wanted);
    const before = [...old.childNodes];
    const after = [...wanted.childNodes];
    after.forEach((child, at) => {
      if (at < before.length) become(before[at], child);
      else old.append(child.cloneNode(true));
    });
    before.slice(after.length).forEach((child) => child.remove());
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
})();
