/* Looking closer at images: one zoom and one place for all of them, and flicker, which shows another
   image in the place of A. Nothing here is an answer: it is neither drafted nor sent. */
(() => {
  const LEVELS = [1, 2, 4];
  const MOST = 8;
  const STEP = 0.1; // of what is in view, per arrow key
  const HELD = 350; // ms: a key held longer than this flickers only while it is down
  const fresh = () => ({ zoom: 1, x: 0.5, y: 0.5, over: 0 });
  let view = fresh();
  let tools = null;
  let pressed = 0;
  const fingers = new Map();

  const windows = () => [...document.querySelectorAll("#task .window")];
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /* The image inside its box, which is as wide as the window: object-fit leaves bands at the sides. */
  function fitted(frame) {
    const box = { width: frame.offsetWidth, height: frame.offsetHeight };
    const ratio = frame.getAttribute("width") / frame.getAttribute("height");
    const width = Math.min(box.width, box.height * ratio);
    return { width, height: width / ratio };
  }

  function draw() {
    const half = 0.5 / view.zoom;
    view.x = clamp(view.x, half, 1 - half);
    view.y = clamp(view.y, half, 1 - half);
    for (const one of windows()) {
      const size = fitted(one.querySelector(".frame"));
      const [x, y] = [(0.5 - view.x) * size.width * view.zoom, (0.5 - view.y) * size.height * view.zoom];
      for (const image of one.querySelectorAll("img")) {
        image.style.transform = view.zoom === 1 ? "" : `translate(${x}px, ${y}px) scale(${view.zoom})`;
      }
      one.toggleAttribute("data-zoomed", view.zoom > 1);
      if (view.zoom > 1) one.tabIndex = 0;
      else one.removeAttribute("tabindex");
    }
    if (!tools) return;
    for (const radio of tools.querySelectorAll("[name=zoom]")) {
      radio.checked = Number(radio.value) === view.zoom;
    }
    // The key goes to the level it would choose next.
    const next = LEVELS.find((level) => level > view.zoom + 0.01) ?? 1;
    const hint = tools.querySelector(".segments kbd");
    for (const radio of tools.querySelectorAll("[name=zoom]")) {
      if (Number(radio.value) !== next) {
        radio.removeAttribute("data-key");
        radio.removeAttribute("aria-keyshortcuts");
      } else {
        radio.dataset.key = "z";
        radio.setAttribute("aria-keyshortcuts", "z");
        if (hint) radio.after(radio.nextSibling, " ", hint);
      }
    }
  }

  /* Zoom so that what lies under (clientX, clientY) in this window stays there. */
  function zoomTo(zoom, at = null, clientX = 0, clientY = 0) {
    const before = view.zoom;
    view.zoom = clamp(zoom, 1, MOST);
    if (Math.abs(view.zoom - 1) < 0.02) view.zoom = 1;
    if (at) {
      const box = at.getBoundingClientRect();
      const size = fitted(at.querySelector(".frame"));
      view.x += ((clientX - box.left - box.width / 2) / size.width) * (1 / before - 1 / view.zoom);
      view.y += ((clientY - box.top - box.height / 2) / size.height) * (1 / before - 1 / view.zoom);
    }
    draw();
  }

  function move(at, dx, dy) {
    const size = fitted(at.querySelector(".frame"));
    view.x -= dx / size.width / view.zoom;
    view.y -= dy / size.height / view.zoom;
    draw();
  }

  /* Flicker: copies of the other images lie in A's window, all but one hidden. */
  function flicker(over) {
    const answers = [...document.querySelectorAll("#task .response .window")];
    answers.sort((one, other) => one.ariaLabel.localeCompare(other.ariaLabel));
    const [first, ...others] = answers;
    view.over = over % answers.length;
    if (view.over && !first.querySelector(".over")) {
      for (const other of others) {
        const copy = other.querySelector(".frame").cloneNode();
        copy.classList.add("over");
        copy.alt = "";
        first.append(copy);
      }
      draw();
    }
    first.querySelectorAll(".over").forEach((copy, place) => copy.toggleAttribute("data-on", place + 1 === view.over));
    const name = view.over ? others[view.over - 1].ariaLabel : "";
    if (view.over) first.dataset.over = name;
    else delete first.dataset.over;
    tools.querySelector(".flicker").checked = view.over > 0;
    const say = tools.querySelector("[data-say]");
    say.dataset.text ??= say.textContent;
    say.textContent = name ? `${name} is in the place of ${first.ariaLabel}.` : say.dataset.text;
  }

  function begin() {
    const found = document.querySelector("#task [data-frames]");
    if (found === tools) return;
    tools = found;
    view = fresh();
    if (tools) draw();
  }

  document.addEventListener("change", (event) => {
    const at = event.target;
    if (!at.closest("[data-frames], .original")) return;
    event.stopPropagation(); // not an answer: nothing to keep in the draft
    if (at.name === "zoom") {
      zoomTo(Number(at.value));
      // A key or the arrows of the group: from here on the arrows move the images.
      if (view.zoom > 1 && at.matches(":focus-visible")) windows()[0].focus({ preventScroll: true });
    }
    if (at.matches(".flicker")) flicker(view.over + 1);
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key === "f" && !event.repeat) pressed = event.timeStamp;
    const at = event.target.closest?.(".window");
    if (!at || view.zoom === 1 || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    view.x += (by[0] * STEP) / view.zoom;
    view.y += (by[1] * STEP) / view.zoom;
    draw();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === "f" && tools && view.over && pressed && event.timeStamp - pressed > HELD) flicker(0);
    if (event.key === "f") pressed = 0;
  });

  document.addEventListener("wheel", (event) => {
    const at = event.target.closest?.("#task .window");
    // At Fit the wheel scrolls the page; a pinch on a touchpad comes as a wheel with Ctrl.
    if (!at || !tools || (view.zoom === 1 && !event.ctrlKey)) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : event.deltaY * 16;
    zoomTo(view.zoom * Math.exp(-lines * (event.ctrlKey ? 0.01 : 0.0025)), at, event.clientX, event.clientY);
  }, { passive: false });

  document.addEventListener("dblclick", (event) => {
    const at = event.target.closest?.("#task .window");
    if (at && tools) zoomTo(view.zoom > 1 ? 1 : 2, at, event.clientX, event.clientY);
  });

  /* One finger or the mouse moves, two fingers zoom and move. */
  document.addEventListener("pointerdown", (event) => {
    const at = event.target.closest?.("#task .window");
    if (!at || !tools || event.button > 0) return;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY, at });
    if (view.zoom > 1 && event.pointerType === "mouse") at.setPointerCapture(event.pointerId);
  });
  document.addEventListener("pointermove", (event) => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    const [dx, dy] = [event.clientX - finger.x, event.clientY - finger.y];
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const span = (x, y) => Math.hypot(x - other.x, y - other.y);
      const [was, is] = [span(finger.x, finger.y), span(event.clientX, event.clientY)];
      const [x, y] = [(event.clientX + other.x) / 2, (event.clientY + other.y) / 2];
      if (was > 10) zoomTo((view.zoom * is) / was, finger.at, x, y);
    }
    if (view.zoom > 1) move(finger.at, other ? dx / 2 : dx, other ? dy / 2 : dy);
    finger.x = event.clientX;
    finger.y = event.clientY;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }

  new ResizeObserver(() => tools && draw()).observe(document.documentElement);
  document.addEventListener("htmx:afterSettle", begin);
  begin();
})();
