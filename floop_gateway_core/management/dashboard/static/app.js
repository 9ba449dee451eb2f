// Small comforts; every page works without them.
(function () {
  "use strict";
  function local(root) {
    root.querySelectorAll("time[datetime]").forEach(function (one) {
      if (one.dataset.local) return;
      one.dataset.local = "yes";
      var at = new Date(one.getAttribute("datetime"));
      if (isNaN(at)) return;
      one.title = one.textContent;
      one.textContent = at.toLocaleString() + " (" + one.textContent + ")";
    });
  }
  function copyable(root) {
    root.querySelectorAll("button[data-copy]").forEach(function (button) {
      button.hidden = !navigator.clipboard;
      button.addEventListener("click", function () {
        navigator.clipboard.writeText(button.dataset.copy).then(function () { button.textContent = "Copied"; });
      });
    });
  }
  function confirmed(root) {
    root.querySelectorAll("form[data-confirm]").forEach(function (form) {
      form.addEventListener("submit", function (event) {
        if (!window.confirm(form.dataset.confirm)) event.preventDefault();
      });
    });
  }
  function cell(text) {
    var one = document.createElement("td");
    one.textContent = text === null || text === undefined ? "" : text;
    return one;
  }
  function tail() {
    var body = document.querySelector("tbody[data-tail]");
    var button = document.querySelector("button[data-tail]");
    if (!body || !button || !window.EventSource) return;
    button.hidden = false;
    var source = null;
    button.addEventListener("click", function () {
      if (source) { source.close(); source = null; button.textContent = "Follow live"; return; }
      button.textContent = "Stop following";
      source = new EventSource(body.dataset.tail);
      source.onmessage = function (event) {
        var one = JSON.parse(event.data);
        var row = document.createElement("tr");
        [one.started_at, one.project, one.alias, one.deployment, one.status, one.code || one.ending,
          one.input_tokens + one.output_tokens, one.microcredits / 1e6, one.total_ms].forEach(function (value) {
          row.appendChild(cell(value));
        });
        body.insertBefore(row, body.firstChild);
      };
    });
  }
  function all(root) { local(root); copyable(root); confirmed(root); }
  document.addEventListener("DOMContentLoaded", function () { all(document); tail(); });
  document.addEventListener("htmx:afterSwap", function (event) { all(event.target); });
})();
