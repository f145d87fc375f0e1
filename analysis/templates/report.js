"use strict";
// Shows and hides what the page holds; draws nothing. What is chosen stands in the address.
(() => {
  const one = (query, root = document) => root.querySelector(query);
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const make = (name, text = "", attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const points = one("#points");
  const chosen = document.head.appendChild(make("style"));
  let state = new URLSearchParams();

  // One selection for every panel, as a style sheet: nothing walks through the page. The name of
  // a line begins with its strategy, and goes on with what sets it apart.
  const kept = (kind, name) => ["", " ", ","]
    .map(end => `[data-${kind}${end && "^"}=${JSON.stringify(name + end)}]`).join();
  const hide = (kind, names) => names.length
    ? `[data-${kind}]:not(${names.map(name => kept(kind, name)).join()}){display:none!important}` : "";
  function show() {
    chosen.textContent = ["line", "model"].map(kind => hide(kind, state.getAll(kind))).join("\n");
    for (const chip of all("[data-pick]"))
      chip.setAttribute("aria-pressed", state.getAll(chip.dataset.pick).includes(chip.value));
    const everything = one("#everything");
    if (everything) everything.hidden = !state.has("line") && !state.has("model");
    for (const figure of all("figure[id]")) {
      const buttons = all("button[data-view]", figure);
      if (!buttons.length) continue;
      const wanted = state.get(`view.${figure.id}`) || buttons[0].dataset.view;
      for (const button of buttons)
        button.setAttribute("aria-pressed", button.dataset.view === wanted);
      for (const part of all("svg [data-view]", figure))
        part.classList.toggle("off", part.dataset.view !== wanted);
    }
    if (!points) return;
    points.dataset.show = state.get("show") || "best";
    for (const chip of all("[data-show]", one("#table .bar")))
      chip.setAttribute("aria-pressed", chip.dataset.show === points.dataset.show);
    count();
  }
  function keep() {
    const text = state.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    show();
  }
  const rows = () => all("tbody tr[data-point]", points).filter(row => row.getClientRects().length);
  function count() {
    one("#count").textContent = `${rows().length} of ${all("tbody tr[data-point]", points).length}`;
  }
  function toggle(kind, value) {
    const others = state.getAll(kind).filter(each => each !== value);
    const had = others.length < state.getAll(kind).length;
    state.delete(kind);
    for (const each of had ? others : [...others, value]) state.append(kind, each);
    keep();
  }

  // Records: read when the first row opens.
  let records;
  function recordsOf(row) {
    records ??= JSON.parse(one("#records").textContent);
    const whole = value => value === null || typeof value !== "object" ? value
      : "$" in value ? whole(records.shared[value.$])
      : Array.isArray(value) ? value.map(whole)
      : Object.fromEntries(Object.entries(value).map(([key, part]) => [key, whole(part)]));
    return whole(records.points[Number(row.dataset.point)]);
  }
  const words = value => value === null || typeof value !== "object" ? String(value)
    : Object.entries(value).map(([key, part]) => (Array.isArray(value) ? "" : `${key} `) + words(part))
      .join(", ");
  async function copy(button, text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.body.appendChild(make("textarea", text));
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const label = button.textContent;
    button.textContent = "copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  }
  function copyButton(text, label = "copy") {
    const button = make("button", label, {type: "button", class: "copy"});
    button.addEventListener("click", () => copy(button, text));
    return button;
  }
  function open(row) {
    const button = one("button", row), next = row.nextElementSibling;
    if (next?.classList.contains("detail")) {
      next.remove();
      button.setAttribute("aria-expanded", "false");
      return;
    }
    const own = recordsOf(row), last = own[own.length - 1], list = make("dl");
    const add = (name, value, ...more) => {
      if (!value) return;
      const cell = make("dd", value);
      cell.append(...more);
      list.append(make("dt", name), cell);
    };
    if (last.command) add("command", " ", make("code", last.command), " ", copyButton(last.command));
    add("commit", last.commit && last.commit + (last.dirty ? ", with uncommitted changes" : ""));
    add("made", last.kind === "published" ? "" : last.created);
    add("machine", `${last.machine}, ${last.device}`);
    add("hosts", last.hosts?.join(", "));
    add("versions", last.versions && words(last.versions));
    add("driver", last.driver);
    add("environment", last.environment && words(last.environment));
    add("source", last.source);
    const text = JSON.stringify(own.length > 1 ? own : last, null, 1);
    const more = make("details");
    more.append(make("summary", own.length > 1 ? `${own.length} records` : "record"),
                copyButton(text, "copy JSON"), make("pre", text));
    // It goes where its row goes, under every filter.
    const {line, model} = row.dataset;
    const names = {class: `${row.className} detail`, "data-line": line, "data-model": model};
    const detail = make("tr", "", names);
    const cell = make("td", "", {colspan: row.children.length});
    cell.append(list, more);
    detail.append(cell);
    row.after(detail);
    button.setAttribute("aria-expanded", "true");
  }

  // Two rows side by side: only what differs.
  function flat(value, prefix = "", found = {}) {
    for (const [key, part] of Object.entries(value)) {
      if (part !== null && typeof part === "object" && !Array.isArray(part))
        flat(part, `${prefix}${key}.`, found);
      else if (typeof part === "number") found[prefix + key] = String(Number(part.toPrecision(6)));
      else if (!(Array.isArray(part) && part.length > 4)) found[prefix + key] = words(part);
    }
    return found;
  }
  function compare() {
    const place = one("#compare"), picked = all("tbody input:checked", points);
    place.replaceChildren();
    place.hidden = picked.length !== 2;
    if (place.hidden) return;
    const two = picked.map(box => box.closest("tr"));
    const [left, right] = two.map(row => {
      const own = recordsOf(row);
      return flat(own[own.length - 1]);
    });
    const line = (name, ...cells) => {
      const row = make("tr");
      row.append(make("th", name, {scope: "row"}), ...cells.map(text => make("td", text ?? "")));
      return row;
    };
    const table = make("table", "", {class: "rows"});
    const names = [...new Set([...Object.keys(left), ...Object.keys(right)])];
    table.append(line("only what differs", ...two.map(row => cells(row).slice(0, 3).join(", "))),
      ...names.filter(name => left[name] !== right[name])
              .map(name => line(name, left[name], right[name])));
    place.append(table);
  }
  function sort(button) {
    const head = button.parentElement, at = [...head.parentElement.children].indexOf(head);
    for (const detail of all("tr.detail", points)) open(detail.previousElementSibling);
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = row => row.children[at].dataset.sort ?? row.children[at].textContent;
    const order = (a, b) => {
      const [first, second] = [key(a), key(b)];
      if (!first || !second) return !first - !second;
      const by = first.localeCompare(second, "en", {numeric: true});
      return (down ? -1 : 1) * (head.classList.contains("number") ? first - second : by);
    };
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    points.tBodies[0].append(...all("tr", points.tBodies[0]).sort(order));
  }
  const cells = row => [...row.children].map(cell =>
    (one("button", cell) ?? cell).textContent.replaceAll("\u00a0", " ").trim());
  const shown = () => [one("thead tr", points), ...rows()].map(cells);
  function asMarkdown() {
    const [head, ...body] = shown().map(row => `| ${row.map(t => t.replaceAll("|", "\\|")).join(" | ")} |`);
    return [head, `|${" --- |".repeat(points.tHead.rows[0].cells.length)}`, ...body].join("\n");
  }
  function saveCsv() {
    const text = shown().map(row => row.map(t => `"${t.replaceAll('"', '""')}"`).join(",")).join("\n");
    const link = make("a", "", {download: "points.csv"});
    link.href = URL.createObjectURL(new Blob([`${text}\n`], {type: "text/csv"}));
    link.click();
    URL.revokeObjectURL(link.href);
  }

  function goTo(place) {
    const folded = one(":scope > details", place);
    if (folded) folded.open = true;
    place.scrollIntoView();
  }
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const each of folded) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of folded) each.open = false; });
  document.addEventListener("click", event => {
    const button = event.target.closest("button, a[href^='#']");
    if (!button) return;
    if (button.matches("a")) {
      event.preventDefault();
      const place = document.getElementById(button.hash.slice(1));
      if (!place) return;
      state.set("at", place.id);
      keep();
      goTo(place);
    }
    else if (button.dataset.pick) toggle(button.dataset.pick, button.value);
    else if (button.dataset.view) { state.set(`view.${button.closest("figure").id}`, button.dataset.view); keep(); }
    else if (button.dataset.show) { state.set("show", button.dataset.show); keep(); }
    else if (button.dataset.copy) copy(button, button.dataset.copy);
    else if (button.id === "everything") { state.delete("line"); state.delete("model"); keep(); }
    else if (button.id === "markdown") copy(button, asMarkdown());
    else if (button.id === "csv") saveCsv();
    else if (button.closest("#points thead")) sort(button);
    else if (button.closest("#points tbody th")) open(button.closest("tr"));
  });
  points?.addEventListener("change", event => {
    const picked = all("tbody input:checked", points);
    if (picked.length > 2) picked.find(box => box !== event.target).checked = false;
    compare();
  });
  function read() {
    const text = location.hash.slice(1);
    state = new URLSearchParams(text.includes("=") ? text : text && `at=${text}`);
    show();
    const place = document.getElementById(state.get("at"));
    if (place) goTo(place);
  }
  addEventListener("hashchange", read);
  read();
})();
