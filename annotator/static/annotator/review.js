/* The button that sends back says to how many. */
(() => {
  const button = document.querySelector("[data-send]");
  if (!button) return;
  const text = button.firstChild;
  function count() {
    const chosen = document.querySelectorAll("#task [name=back]:checked").length;
    text.textContent = chosen ? `Send back to ${chosen} rater${chosen === 1 ? "" : "s"} ` : "Send back ";
  }
  document.addEventListener("change", count);
  count();
})();
