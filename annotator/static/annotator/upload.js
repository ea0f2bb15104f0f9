/* Upload with progress. Without it the form is sent by the browser itself. */
(() => {
  const form = document.querySelector("form[data-upload]");
  if (!form) return;
  const file = form.querySelector("input[type=file]");
  const box = form.querySelector("[data-progress]");
  const bar = box.querySelector("progress");
  const said = box.querySelector("[data-said]");
  const button = form.querySelector("button[type=submit]");
  const limit = Number(form.dataset.limit);
  const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

  function say(text) {
    box.hidden = false;
    said.textContent = text;
  }

  file.addEventListener("change", () => {
    const large = file.files[0] && file.files[0].size > limit;
    file.setCustomValidity(large ? "too large" : "");
    bar.hidden = true;
    if (large) say(`${size(file.files[0].size)} is more than this server takes: ${size(limit)}.`);
    else box.hidden = true;
    button.disabled = Boolean(large);
  });

  function stop(text) {
    bar.hidden = true;
    button.disabled = false;
    say(text);
  }

  form.addEventListener("submit", (event) => {
    if (!file.files.length) return;
    event.preventDefault();
    const request = new XMLHttpRequest();
    button.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    say("Uploading");
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      bar.value = (100 * loaded) / total;
      say(loaded < total ? `${size(loaded)} of ${size(total)} uploaded` : "Uploaded; the run is being made");
    });
    request.addEventListener("load", () => {
      if (request.status === 200 && request.responseURL) return location.assign(request.responseURL);
      const page = new DOMParser().parseFromString(request.responseText, "text/html");
      const notes = [...page.querySelectorAll("form [role=alert] p, form .error p, main .note p")];
      const text = [...new Set(notes.map((note) => note.textContent.trim()))].join(" ");
      stop(text || `The server answered ${request.status}. Nothing was imported.`);
    });
    request.addEventListener("error", () => stop("No connection. Nothing was imported; try again."));
    request.open("POST", form.action);
    request.send(new FormData(form));
  });
})();
