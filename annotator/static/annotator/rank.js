/* Ranking by key, arrow and dragging; best and worst by key. The radios are the state and all that
   is sent; this keeps the list in their order. Bound to the document: a swapped-in task just works.
   "" is no place yet, 0 not ranked, ties share a place: 1 2= 2= 4. */
(() => {
  document.documentElement.dataset.ranks = ""; // shows what needs this script
  const PLACES = 'input[name^="place-"]';

  function say(text) {
    document.getElementById("status").textContent = text;
  }

  /* ---- the list as entries {item, label, place}, in the order shown */

  function read(list) {
    return [...list.querySelectorAll(".item")]
      .map((item) => {
        const checked = item.querySelector(`${PLACES}:checked`);
        return { item, label: item.dataset.label, place: checked ? Number(checked.value) : "" };
      })
      .sort((one, other) => (one.label < other.label ? -1 : 1));
  }

  const better = (entries, entry) => entries.filter(({ place }) => place && place < entry.place).length;
  const isComplete = (entries) => entries.every(({ place }) => place !== "");
  const hasGap = (entries) => isComplete(entries) && entries.some((one) => one.place > 1 + better(entries, one));

  /* Once all have a place, each stands after all better ones. A gap that the last key left stays for
     one more: "a 2" then "b 1" swaps, though after "a 2" nothing was first. */
  function settle(entries, { keepGap }) {
    if (!isComplete(entries)) return;
    const least = entries.map((one) => 1 + better(entries, one));
    entries.forEach((one, at) => {
      if (one.place) one.place = keepGap ? Math.max(one.place, least[at]) : least[at];
    });
  }

  /* Groups from the top: places in order, what has none yet, not ranked. As kinds/ranking.py has it. */
  function grouped(entries) {
    const placed = new Map();
    for (const one of entries.filter(({ place }) => place)) {
      placed.set(one.place, [...(placed.get(one.place) ?? []), one]);
    }
    const groups = [...placed.keys()].sort((a, b) => a - b).map((place) => placed.get(place));
    const alone = (wanted) => entries.filter(({ place }) => place === wanted).map((one) => [one]);
    return [...groups, ...alone(""), ...alone(0)];
  }

  function heading(group) {
    const mark = document.createElement("b");
    mark.className = "place";
    const spoken = document.createElement("span");
    spoken.className = "visually-hidden";
    const { place } = group[0];
    spoken.textContent = place ? "Place " : place === 0 ? "Not ranked" : "No place yet";
    mark.append(spoken);
    if (place) mark.append(`${place}${group.length > 1 ? "=" : ""}`);
    else {
      const sign = document.createElement("span");
      sign.setAttribute("aria-hidden", "true");
      sign.textContent = place === 0 ? "×" : "–";
      mark.append(sign);
    }
    return mark;
  }

  function write(list, entries) {
    for (const { item, place } of entries) {
      for (const radio of item.querySelectorAll(PLACES)) radio.checked = radio.value === String(place);
    }
    list.toggleAttribute("data-gap", hasGap(entries));
    const none = document.querySelector('#task [name="none_ranked"]');
    none.checked = entries.every(({ place }) => place === 0);
    const focused = document.activeElement;
    const lines = grouped(entries).map((group) => {
      const line = document.createElement("li");
      line.dataset.place = group[0].place;
      line.append(heading(group), ...group.map(({ item }) => item));
      return line;
    });
    list.replaceChildren(...lines);
    if (list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  function told(entries, { label, place }) {
    if (place === "") return `Answer ${label}, no place`;
    if (place === 0) return `Answer ${label}, not ranked`;
    const tied = entries.filter((one) => one.place === place && one.label !== label).map((one) => one.label);
    return `Answer ${label}, place ${place}${tied.length ? `, tied with ${tied.join(", ")}` : ""}`;
  }

  function show(list, entries, entry) {
    write(list, entries);
    entry.item.querySelector("header").scrollIntoView({ block: "nearest" });
    say(told(entries, entry));
  }

  /* ---- a place chosen */

  function placed(list, item) {
    const entries = read(list);
    const entry = entries.find((one) => one.item === item);
    const before = shownPlaces(list);
    if (list.dataset.ties === "no" && entry.place) {
      const other = entries.find((one) => one !== entry && one.place === entry.place);
      if (other) other.place = before.get(item) || "";
    }
    settle(entries, { keepGap: !list.hasAttribute("data-gap") });
    show(list, entries, entry);
  }

  /* Places as the list still shows them, before what was just chosen. */
  function shownPlaces(list) {
    const places = new Map();
    for (const line of list.children) {
      const place = line.dataset.place === "" ? "" : Number(line.dataset.place);
      for (const item of line.querySelectorAll(".item")) places.set(item, place);
    }
    return places;
  }

  function noneRanked(list, box) {
    const before = shownPlaces(list);
    const entries = read(list);
    if (box.checked) {
      list.keptPlaces = new Map(entries.map(({ item }) => [item, before.get(item)]));
      for (const one of entries) one.place = 0;
    } else {
      for (const one of entries) one.place = list.keptPlaces?.get(one.item) ?? "";
    }
    write(list, entries);
    say(box.checked ? "None of the answers can be ranked" : "The answers can be ranked");
  }

  /* ---- moving: the list as it stands becomes the ranking, whoever had no place yet included */

  function arrange(list, entry, change) {
    const entries = read(list);
    const own = entries.find((one) => one.item === entry);
    const groups = grouped(entries).filter(([one]) => one.place !== 0);
    if (!change(groups, own)) return say(told(entries, own));
    let next = 1;
    for (const group of groups) {
      for (const one of group) one.place = next;
      next += group.length;
    }
    show(list, entries, own);
    list.dispatchEvent(new Event("change", { bubbles: true })); // a draft is kept of it
  }

  function step(groups, own, by) {
    const at = groups.findIndex((group) => group.includes(own));
    if (at < 0) {
      if (by > 0) return false; // not ranked: below is nothing
      groups.push([own]);
    } else if (groups[at].length > 1) {
      groups[at] = groups[at].filter((one) => one !== own);
      groups.splice(by < 0 ? at : at + 1, 0, [own]);
    } else {
      const to = at + by;
      if (to < 0 || to >= groups.length) return false;
      [groups[at], groups[to]] = [groups[to], groups[at]];
    }
    return true;
  }

  function drop(groups, own, target, where) {
    const from = groups.findIndex((group) => group.includes(own));
    if (from >= 0) groups[from] = groups[from].filter((one) => one !== own);
    const to = groups.findIndex((group) => group.some((one) => one.item === target));
    if (to < 0) own.place = 0; // among the ones that are not ranked
    else if (where === "tie") groups[to].push(own);
    else groups.splice(where === "before" ? to : to + 1, 0, [own]);
    for (let at = groups.length - 1; at >= 0; at -= 1) if (!groups[at].length) groups.splice(at, 1);
    return true;
  }

  const moved = (item, by) => arrange(item.closest(".ranking"), item, (groups, own) => step(groups, own, by));

  /* ---- dragging by the grip, with a mouse, a pen or a finger */

  let drag = null;

  function begin(event, grip) {
    const item = grip.closest(".item");
    const list = item.closest(".ranking");
    event.preventDefault();
    drag = { item, list, grip, y: event.clientY, target: null, where: "", id: event.pointerId };
    const before = grip.getBoundingClientRect().top;
    item.dataset.dragged = "";
    list.dataset.dragging = ""; // answers fold, so that the whole list is in reach
    window.scrollBy(0, grip.getBoundingClientRect().top - before);
    grip.setPointerCapture(event.pointerId);
    requestAnimationFrame(follow);
  }

  function aim() {
    const { item, list, y } = drag;
    let best = null;
    for (const other of list.querySelectorAll(".item")) {
      const box = other.getBoundingClientRect();
      const away = Math.max(box.top - y, y - box.bottom, 0);
      if (!best || away < best.away) best = { other, box, away };
    }
    for (const other of list.querySelectorAll("[data-drop]")) delete other.dataset.drop;
    drag.target = null;
    if (!best || best.other === item) return;
    const share = (y - best.box.top) / best.box.height;
    const edge = list.dataset.ties === "no" ? 0.5 : 0.3;
    const tied = [...best.other.parentElement.querySelectorAll(".item")].filter((one) => one !== item);
    let where = share < edge ? "before" : share >= 1 - edge ? "after" : "tie";
    // Inside a bracket there is no between.
    if (where === "before" && tied[0] !== best.other) where = "tie";
    if (where === "after" && tied.at(-1) !== best.other) where = "tie";
    drag.target = best.other;
    drag.where = where;
    best.other.dataset.drop = best.other.closest("li").dataset.place === "0" ? "tie" : where;
  }

  function follow() {
    if (!drag) return;
    if (!drag.item.isConnected) return end();
    const low = innerHeight - (document.getElementById("dock")?.offsetHeight ?? 0);
    if (drag.y < 72) window.scrollBy(0, -10);
    else if (drag.y > low - 72) window.scrollBy(0, 10);
    aim();
    requestAnimationFrame(follow);
  }

  function end() {
    const { item, list, target, where } = drag;
    drag = null;
    for (const other of list.querySelectorAll("[data-drop]")) delete other.dataset.drop;
    delete item.dataset.dragged;
    delete list.dataset.dragging;
    return { item, list, target, where };
  }

  document.addEventListener("pointerdown", (event) => {
    const grip = event.target.closest(".ranking .grip");
    if (grip && event.isPrimary && event.button === 0) begin(event, grip);
  });
  document.addEventListener("pointermove", (event) => {
    if (drag?.id === event.pointerId) drag.y = event.clientY;
  });
  document.addEventListener("pointerup", (event) => {
    if (drag?.id !== event.pointerId) return;
    drag.y = event.clientY;
    aim();
    const { item, list, target, where } = end();
    item.focus({ preventScroll: true });
    if (target && list.isConnected) arrange(list, item, (groups, own) => drop(groups, own, target, where));
    else item.querySelector("header").scrollIntoView({ block: "nearest" });
  });
  document.addEventListener("pointercancel", (event) => {
    if (drag?.id === event.pointerId) end();
  });

  /* ---- best and worst: one answer is never both */

  function picked({ name, value }) {
    const other = name === "best" ? "worst" : "best";
    const same = document.querySelector(`#task [name="${other}"][value="${value}"]`);
    same.checked = false;
    const says = (which) => {
      const label = document.querySelector(`#task [name="${which}"]:checked`)?.value;
      return label ? `answer ${label} is the ${which}` : `no ${which} yet`;
    };
    const text = `${says(name)}, ${says(other)}`;
    say(text[0].toUpperCase() + text.slice(1));
  }

  /* ---- what people do */

  document.addEventListener("change", ({ target }) => {
    const list = document.querySelector("#task .ranking");
    if (list && target.matches(`.ranking ${PLACES}`)) placed(list, target.closest(".item"));
    else if (list && target.matches('[name="none_ranked"]')) noneRanked(list, target);
    else if (target.matches(".picks [name=best], .picks [name=worst]")) picked(target);
  });

  document.addEventListener("click", ({ target }) => {
    const button = target.closest(".ranking [data-move]");
    if (button) moved(button.closest(".item"), button.dataset.move === "up" ? -1 : 1);
  });

  document.addEventListener("keydown", (event) => {
    if (drag && event.key === "Escape") return end();
    const item = event.target.closest(".ranking .item");
    if (!item || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (!event.target.matches(`.item, .moves button, ${PLACES}`)) return;
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      event.preventDefault();
      moved(item, event.key === "ArrowUp" ? -1 : 1);
    } else if (event.target.matches(PLACES) && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      // Along the places without taking each: the list would be put in order at every step.
      event.preventDefault();
      const radios = [...item.querySelectorAll(PLACES)];
      const to = radios.indexOf(event.target) + (event.key === "ArrowLeft" ? -1 : 1);
      radios.at(to % radios.length).focus();
    }
  });

  // Gaps close before anything is sent, so that what is saved is what the page shows.
  document.addEventListener("submit", ({ target }) => {
    const list = target.id === "task" && target.querySelector(".ranking");
    if (!list) return;
    const entries = read(list);
    settle(entries, { keepGap: false });
    if (list.hasAttribute("data-gap")) write(list, entries);
  }, true);
})();
