// Live changes, keys, drafts. Every page works without it.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const queue = $("#queue");
  const keep = (storage, key, value) => {
    try {
      if (value === undefined) return storage.getItem(key);
      if (value === null) storage.removeItem(key); else storage.setItem(key, value);
    } catch { /* storage is switched off: nothing is kept */ }
    return null;
  };

  // Large print, remembered for this browser.
  const large = $("#large");
  const size = (value) => { document.documentElement.dataset.size = value; };
  if (large) {
    large.hidden = false;
    size(keep(localStorage, "size") || "");
    large.addEventListener("click", () => {
      const next = document.documentElement.dataset.size === "large" ? "" : "large";
      size(next);
      keep(localStorage, "size", next || null);
    });
  }

  // A form is sent once; coming back finds the button alive.
  for (const form of all("form[method=post]")) {
    form.addEventListener("submit", () => {
      setTimeout(() => all("button", form).forEach((b) => { b.disabled = true; }));
    });
  }
  addEventListener("pageshow", () => all("button:disabled").forEach((b) => { b.disabled = false; }));

  // What is half written survives a reload, in this tab only; sending it lets go of it.
  for (const form of all("form[data-draft]")) {
    const key = `draft:${form.dataset.draft}`;
    const fields = all("input:not([type=hidden]), textarea", form);
    const box = (field) => field.type === "radio" || field.type === "checkbox";
    const failed = $(".failed", form);
    const draft = failed ? null : JSON.parse(keep(sessionStorage, key) || "null");
    if (draft) {
      fields.forEach((field, index) => {
        if (box(field)) field.checked = Boolean(draft[index]);
        else field.value = draft[index] ?? "";
      });
    }
    form.addEventListener("input", () => {
      const state = fields.map((field) => (box(field) ? field.checked : field.value));
      keep(sessionStorage, key, JSON.stringify(state));
    });
    form.addEventListener("submit", () => keep(sessionStorage, key, null));
  }

  // Keys, unless somebody is typing.
  const rows = () => all("tbody tr[data-ticket]", queue || document);
  const choose = (step) => {
    const list = rows();
    if (!list.length) return;
    const now = list.findIndex((row) => row.classList.contains("chosen"));
    const next = Math.max(0, Math.min(list.length - 1, now + step));
    list.forEach((row) => row.classList.remove("chosen"));
    list[next].classList.add("chosen");
    list[next].scrollIntoView({ block: "nearest" });
  };
  const open = (row) => { const link = row && $("a", row); if (link) location.assign(link.href); };
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (event.key === "Escape" && typing) event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (queue && event.key === "j") return choose(1);
    if (queue && event.key === "k") return choose(-1);
    if (queue && event.key === "Enter" && event.target === document.body) return open($("tr.chosen", queue));
    const target = $(`[data-key="${CSS.escape(event.key)}"]`);
    if (!target) return;
    event.preventDefault();
    if (target.tagName === "INPUT") target.focus(); else target.click();
  });

  if (!queue) return;
  queue.addEventListener("click", (event) => {
    if (!event.target.closest("a") && !String(getSelection())) open(event.target.closest("tr[data-ticket]"));
  });

  // Live changes. Nothing moves under a pointer that was just moved over the queue, nor under a
  // chosen row: then a line says what came, and waits to be clicked.
  const STILL_MS = 5000;
  let moved = -Infinity;
  queue.addEventListener("pointermove", () => { moved = performance.now(); });
  queue.addEventListener("pointerleave", () => { moved = -Infinity; });
  const busy = () =>
    performance.now() - moved < STILL_MS || queue.contains(document.activeElement) || $("tr.chosen", queue);
  const news = $("#news");
  let waiting = null;

  const show = (page) => {
    const known = new Set(rows().map((row) => row.dataset.ticket));
    queue.replaceChildren(...$("#queue", page).childNodes);
    rows().forEach((row) => { if (!known.has(row.dataset.ticket)) row.classList.add("fresh"); });
    news.hidden = true;
    waiting = null;
  };
  const took = (page) => {
    $("#views").replaceChildren(...$("#views", page).childNodes);
    const known = new Set(rows().map((row) => row.dataset.ticket));
    const fresh = all("#queue tr[data-ticket]", page).filter((row) => !known.has(row.dataset.ticket));
    if (!busy()) return show(page);
    waiting = page;
    if (fresh.length) {
      const [first] = fresh;
      const words = $(".problem", first).textContent.trim();
      news.textContent = `${fresh.length} 条新反映：${first.dataset.ticket} ${words}（点击查看）`;
      news.hidden = false;
    }
  };
  news.addEventListener("click", () => { if (waiting) show(waiting); });
  // Changes that brought no new row need no line; they come when the pointer rests.
  setInterval(() => { if (waiting && news.hidden && !busy()) show(waiting); }, 1000);

  let asking = false;
  let again = false;
  const ask = async () => {
    if (asking) { again = true; return; }
    asking = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.redirected) { location.reload(); return; }
      if (answer.ok) took(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* offline for a moment: the next change asks again */ }
    asking = false;
    if (again) { again = false; setTimeout(ask, 300); }
  };
  const changes = new EventSource("/desk/live");
  changes.addEventListener("changed", ask);
  // Words like “还剩 3 小时” grow old by themselves.
  setInterval(ask, 60000);
})();
