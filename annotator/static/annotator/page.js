/* Small things every page shares: local times, time left, copying, what to do without a network. */
(() => {
  const show = (options) => new Intl.DateTimeFormat("en-GB", options);
  const clock = show({ hour: "2-digit", minute: "2-digit" });
  const week = show({ weekday: "short", hour: "2-digit", minute: "2-digit" });
  const day = show({ day: "numeric", month: "short" });
  const long = show({ day: "numeric", month: "short", year: "numeric" });
  const full = show({ dateStyle: "full", timeStyle: "medium" });

  function near(at, now) {
    if (at.toDateString() === now.toDateString()) return clock.format(at);
    if (Math.abs(now - at) < 6 * 864e5) return week.format(at);
    return (at.getFullYear() === now.getFullYear() ? day : long).format(at);
  }

  function times() {
    const now = new Date();
    for (const one of document.querySelectorAll("time[data-time]:not([title])")) {
      const at = new Date(one.dateTime);
      one.textContent = near(at, now);
      one.title = full.format(at);
    }
    for (const one of document.querySelectorAll("time[data-until]")) {
      const at = new Date(one.dateTime);
      one.textContent = ` until ${clock.format(at)}`;
      const left = one.parentElement.querySelector("[data-minutes]");
      if (left) left.textContent = Math.max(0, Math.floor((at - now) / 6e4));
    }
    for (const one of document.querySelectorAll("[data-copy][hidden]")) one.hidden = !navigator.clipboard;
  }

  const offline = document.getElementById("offline");
  let failed = null;
  // A form that did not arrive is not forgotten because a draft of it did or did not.
  const weightier = (one, other) => one?.elt.matches("form") && !other.elt.matches("form");
  function lost({ detail }) {
    const request = detail.requestConfig;
    // Reading asks again by itself; what was to be saved waits for the person.
    if (request.verb === "get") return setTimeout(() => htmx.trigger(request.elt, "again"), 5000);
    if (!weightier(failed, request)) failed = request;
    offline.hidden = false;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-retry], [data-copy]");
    if (button?.matches("[data-retry]") && failed) {
      const { verb, path, elt: source, target, formData } = failed;
      htmx.ajax(verb, path, { source, target, values: formData });
    } else if (button?.dataset.copy) {
      const field = document.getElementById(button.dataset.copy);
      field.select?.();
      navigator.clipboard.writeText(field.value ?? field.textContent).then(() => { button.textContent = "Copied"; });
    }
  });
  document.addEventListener("htmx:sendError", lost);
  document.addEventListener("htmx:responseError", (event) => { if (event.detail.requestConfig.verb === "get") lost(event); });
  document.addEventListener("htmx:afterOnLoad", ({ detail }) => {
    // Having read something means that the network is back, not that anything was saved.
    if (detail.requestConfig.verb === "get" || weightier(failed, detail.requestConfig)) return;
    failed = null;
    offline.hidden = true;
  });
  document.addEventListener("htmx:afterSettle", times);
  setInterval(times, 15000);
  times();
})();
