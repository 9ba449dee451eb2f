// Small comforts; every page works without them.
(function () {
  "use strict";
  function local(root) {
    root.querySelectorAll("time[datetime]").forEach(function (one) {
      if (one.dataset.local) return;
      one.dataset.local = "yes";
      var at = new Date(one.getAttribute("datetime"));
      if (isNaN(at)) return;
      var utc = document.createElement("span");
      utc.className = "utc";
      utc.textContent = one.textContent;
      one.textContent = at.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
      one.appendChild(utc);
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
  function cell(text, kind) {
    var one = document.createElement("td");
    one.textContent = text === null || text === undefined ? "" : text;
    one.className = kind || "";
    return one;
  }
  function started(one, requests) {
    var link = document.createElement("a"), time = document.createElement("time");
    link.href = requests + one.request_id;
    time.setAttribute("datetime", one.started_at);
    time.textContent = one.started_at.slice(0, 19).replace("T", " ") + " UTC";
    link.appendChild(time);
    var first = document.createElement("td");
    first.appendChild(link);
    return first;
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
        row.appendChild(started(one, body.dataset.requests));
        row.appendChild(cell(one.project, "less"));
        row.appendChild(cell(one.alias));
        row.appendChild(cell(one.deployment, "less"));
        row.appendChild(cell(one.status, "less"));
        row.appendChild(cell(one.code || one.ending, one.code ? "bad" : ""));
        row.appendChild(cell(one.input_tokens + one.output_tokens, "number"));
        row.appendChild(cell(one.microcredits / 1e6, "number"));
        row.appendChild(cell(one.total_ms, "number less"));
        local(row);
        body.insertBefore(row, body.firstChild);
      };
    });
  }
  function all(root) { local(root); copyable(root); confirmed(root); }
  document.addEventListener("DOMContentLoaded", function () { all(document); tail(); });
  document.addEventListener("htmx:afterSwap", function (event) { all(event.target); });
})();
