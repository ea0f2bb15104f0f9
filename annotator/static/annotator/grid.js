/* Ratings and checklists by keyboard. A key answers the cell at hand and goes to the next one;
   j and k go through the cells, up and down stay with one answer. Left and right are the browser's. */
(() => {
  const grid = () => document.querySelector("[data-grid]");
  const cellsOf = (place) => [...place.querySelectorAll(".cell")];
  const isOpen = (cell) => !cell.querySelector(":checked");

  function current(cells) {
    return cells.find((cell) => "at" in cell.dataset) ?? cells.find(isOpen) ?? cells[0];
  }

  function mark(cell) {
    for (const one of document.querySelectorAll("[data-grid] [data-at], .response[data-at]")) delete one.dataset.at;
    if (!cell) return;
    cell.dataset.at = "";
    const answer = document.querySelectorAll(".response")[cell.dataset.slot];
    if (answer) answer.dataset.at = "";
  }

  function go(cell) {
    (cell.querySelector(":checked") ?? cell.querySelector("input")).focus();
  }

  // After the last cell: whatever was passed over, or stay.
  function advance(cells, from) {
    go(cells[cells.indexOf(from) + 1] ?? cells.find(isOpen) ?? from);
  }

  function below(cell, by) {
    const lines = [...grid().querySelectorAll(".line")];
    const line = lines[lines.indexOf(cell.closest(".line")) + by];
    return line?.querySelector(`[data-slot="${cell.dataset.slot}"]`);
  }

  function leaveNothing(block) {
    const open = cellsOf(block).filter(isOpen);
    for (const cell of open) cell.querySelector("[value=no]").click();
    go(cellsOf(grid()).find(isOpen) ?? cellsOf(block).at(-1));
  }

  function act(event, cells) {
    const at = current(cells);
    const letter = /^[a-z]$/i.test(event.key);
    const key = letter ? event.key.toLowerCase() : event.key;
    if (letter && event.shiftKey) {
      const rest = key === "n" && grid().querySelector("[data-failures]");
      return rest ? leaveNothing(rest) || true : false;
    }
    if (key === "j" || key === "k") {
      // The first press goes to the cell at hand, wherever the focus was.
      const next = at.contains(document.activeElement) ? cells[cells.indexOf(at) + (key === "j" ? 1 : -1)] : at;
      if (next) go(next);
      return true;
    }
    const choice = at.querySelector(`[data-answer="${CSS.escape(key)}"]`);
    if (!choice || event.repeat) return false;
    choice.click();
    advance(cells, at);
    return true;
  }

  // Before keys.js, which leaves alone what was dealt with here.
  document.addEventListener("keydown", (event) => {
    const place = grid();
    const on = event.target;
    if (!place || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("[popover]:popover-open")) return;
    const within = on.closest("[data-grid] .cell");
    let done = false;
    if (within && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      const next = below(within, event.key === "ArrowDown" ? 1 : -1);
      if (next) go(next);
      done = true;
    } else if (document.body.dataset.keys !== "off" && !on.closest("[data-scope], textarea, select, input:not([type=radio], [type=checkbox])")) {
      done = act(event, cellsOf(place));
    }
    if (done) event.preventDefault();
  }, true);

  document.addEventListener("focusin", ({ target }) => {
    const cell = target.closest("[data-grid] .cell");
    if (cell) mark(cell);
  });
  document.addEventListener("change", ({ target }) => {
    target.closest("[data-grid] .cell")?.removeAttribute("aria-invalid");
  });
  document.addEventListener("click", ({ target }) => {
    const block = target.closest("[data-rest]")?.closest("[data-failures]");
    if (block) leaveNothing(block);
  });

  function begin() {
    const place = grid();
    if (!place) return;
    for (const button of place.querySelectorAll("[data-rest]")) button.hidden = false;
    if (place.querySelector("[data-at]")) return;
    const refused = place.querySelector("[aria-invalid] input");
    mark(refused?.closest(".cell") ?? current(cellsOf(place)));
    // A swapped page is scrolled to its top after this; what is missing has to be seen.
    if (refused) setTimeout(() => go(refused.closest(".cell")));
  }
  document.addEventListener("htmx:afterSettle", begin);
  begin();
})();
