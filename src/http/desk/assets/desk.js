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

  // What is half written survives a reload, a lost session and a failed attempt, in this tab, for
  // this login; only the page that says what became of it, or a logout, lets go of it. The entry's
  // own number is kept with it: what was registered without our hearing of it is not made twice.
  const keyOf = (name) => `draft:${document.body.dataset.login}:${name}`;
  const draftOf = (name) => {
    try { return JSON.parse(keep(sessionStorage, keyOf(name)) || "null"); } catch { return null; }
  };
  for (const form of all("form[data-draft]")) {
    const name = form.dataset.draft;
    const fields = all("input:not([type=hidden]), textarea, select", form);
    const entry = $("input[name=entry]", form);
    const box = (field) => field.type === "radio" || field.type === "checkbox";
    const save = () => {
      const values = fields.map((field) => (box(field) ? field.checked : field.value));
      keep(sessionStorage, keyOf(name), JSON.stringify({ entry: entry?.value, values }));
    };
    const draft = $(".failed", form) || "failed" in form.dataset ? null : draftOf(name);
    if (draft) {
      if (draft.entry && entry) entry.value = draft.entry;
      fields.forEach((field, index) => {
        if (box(field)) field.checked = Boolean(draft.values[index]);
        else field.value = draft.values[index] ?? "";
      });
      const folded = form.closest("details");
      if (folded) folded.open = true;
    }
    form.addEventListener("input", save);
    form.addEventListener("submit", save);
  }
  const sent = $("[data-sent]");
  if (sent) keep(sessionStorage, keyOf(sent.dataset.sent), null);

  // A form shows what its choice needs; what is written twice is proposed, until it is changed.
  for (const form of all("form.act")) {
    const chosen = $("select", form);
    const needed = all("[data-for]", form);
    const fit = () => needed.forEach((one) => { one.hidden = one.dataset.for !== chosen.value; });
    if (chosen && needed.length) { chosen.addEventListener("change", fit); fit(); }
    const copy = $("[data-from]", form);
    const from = copy && $(`[name=${copy.dataset.from}]`, form);
    if (!from) continue;
    let same = copy.value === "" || copy.value === from.value;
    from.addEventListener("input", () => { if (same) copy.value = from.value; });
    copy.addEventListener("input", () => { same = copy.value === ""; });
  }

  const became = $("[data-register]");
  if (became) {
    const draft = became.dataset.register === "used" ? draftOf("register") : null;
    keep(sessionStorage, keyOf("register"), draft && JSON.stringify({ ...draft, entry: null }));
  }
  for (const form of all("form[action='/desk/logout']")) {
    form.addEventListener("submit", () => {
      try {
        Object.keys(sessionStorage).filter((key) => key.startsWith("draft:"))
          .forEach((key) => sessionStorage.removeItem(key));
      } catch { /* nothing was kept */ }
    });
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
    const folded = target.tagName === "SUMMARY" && target.parentElement;
    if (folded && folded.open) {
      const first = $("form input:not([type=hidden]), form textarea, form select", folded);
      if (first) first.focus();
    }
  });

  if (!queue) return;
  queue.addEventListener("click", (event) => {
    if (!event.target.closest("a") && !String(getSelection())) open(event.target.closest("tr[data-ticket]"));
  });

  // Live changes. Nothing moves while the pointer is over the queue, resting or not, nor under a
  // chosen row: then a line says what came, and waits to be clicked.
  const busy = () =>
    queue.matches(":hover") || queue.contains(document.activeElement) || $("tr.chosen", queue);
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
  // Changes that brought no new row need no line; they come when the pointer has left.
  setInterval(() => { if (waiting && news.hidden && !busy()) show(waiting); }, 1000);

  // While the gateway cannot be reached, a line says from when the rows are.
  const link = $("#link");
  let fresh = new Date();
  const reached = (yes) => {
    if (yes) fresh = new Date();
    const time = [fresh.getHours(), fresh.getMinutes()].map((n) => String(n).padStart(2, "0")).join(":");
    link.hidden = yes;
    link.textContent = yes ? "" : `连接中断，正在重试；显示的是 ${time} 的内容`;
  };

  // Asked by the page itself: this does not count as somebody's use of it.
  const LONGEST_MS = 15000;
  let asking = false;
  let again = false;
  const ask = async () => {
    if (asking) { again = true; return; }
    asking = true;
    const ends = new AbortController();
    const timer = setTimeout(() => ends.abort(), LONGEST_MS);
    try {
      const headers = { accept: "text/html", "x-unattended": "1" };
      const answer = await fetch(location.href, { headers, signal: ends.signal });
      if (answer.redirected) { location.reload(); return; }
      const text = answer.ok ? await answer.text() : "";
      reached(answer.ok);
      if (answer.ok) took(new DOMParser().parseFromString(text, "text/html"));
    } catch { reached(false); } finally { clearTimeout(timer); asking = false; }
    if (again) { again = false; setTimeout(ask, 300); }
  };
  // A browser gives up for good on an answer that is no stream, as a proxy or a restart gives: then
  // a new one is opened, later and later.
  const FIRST_MS = 1000;
  const LAST_MS = 30000;
  let wait = FIRST_MS;
  const watch = () => {
    const changes = new EventSource("/desk/live");
    changes.addEventListener("open", () => { wait = FIRST_MS; });
    changes.addEventListener("changed", ask);
    changes.addEventListener("error", () => {
      ask();
      if (changes.readyState !== EventSource.CLOSED) return;
      setTimeout(watch, wait);
      wait = Math.min(wait * 2, LAST_MS);
    });
  };
  watch();
  // Words like “还剩 3 小时” grow old by themselves.
  setInterval(ask, 60000);
})();
