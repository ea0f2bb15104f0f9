/* The time somebody really spends on a task: counted while its tab is in view, sent with the answers. */
(() => {
  let since = null;
  let spent = 0;
  let field = null;

  function count() {
    const now = performance.now();
    if (since !== null) spent += now - since;
    since = document.visibilityState === "visible" ? now : null;
    if (field) field.value = Math.round(spent);
  }

  function begin() {
    const found = document.querySelector("#task input[name=active_ms]");
    if (found === field) return;
    field = found;
    since = null;
    spent = Number(field?.value) || 0;
    count();
  }

  document.addEventListener("visibilitychange", count);
  document.addEventListener("htmx:configRequest", ({ detail }) => {
    count();
    if (detail.parameters.has?.("active_ms") && field) detail.parameters.set("active_ms", field.value);
  });
  document.addEventListener("submit", count, true);
  document.addEventListener("htmx:afterSettle", begin);
  begin();
})();
