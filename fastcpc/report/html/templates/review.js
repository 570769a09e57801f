// Decisions about suspects: accept, keep, another class, remove. They become corrections.csv.
(() => {
  if (!gallery) return;
  const { list, cards, find, box, rowOf } = gallery;
  const about = JSON.parse(find("review").textContent);
  const COLUMNS = ["index", "path", "given_label", "decision", "label"];
  const BUTTONS = [
    ["accept", "Accept", "a"],
    ["keep", "Keep", "k"],
    ["other", "Other", "o"],
    ["remove", "Remove", "r"],
  ];
  const columnOf = Object.fromEntries(gallery.columns.map((name, place) => [name, place]));
  const sampleOf = new Map(cards.map((card) => [card, sample(rowOf(card))]));
  const cardOf = new Map(cards.map((card) => [sampleOf.get(card).index, card]));
  const labelOf = new Map(cards.map((card) => [card, box(card).getAttribute("aria-label")]));
  const past = new Map(about.past.map((row) => [row[0], fromCells(row)]));
  const decisions = new Map(past); // index -> {index, path, given, decision, label}
  let current = null; // the card that had the focus last
  let latest = []; // the cards of the last decision

  function sample(row) {
    const [index, path] = [row[columnOf.index], row[columnOf.path]];
    return { index, path, given: row[columnOf.given_label], suggested: row[columnOf.predicted_label] };
  }

  function fromCells([index, path, given, decision, label]) {
    return { index, path, given, decision, label };
  }

  const cells = (one) => [one.index, one.path, one.given, one.decision, one.decision === "relabel" ? one.label : null];

  // ---- decide ----

  function decide(chosen, kind, label) {
    for (const card of chosen) {
      const { index, path, given, suggested } = sampleOf.get(card);
      const target = kind === "accept" ? suggested : label;
      if (kind === "undo") decisions.delete(index);
      else if (kind === "remove") decisions.set(index, { index, path, given, decision: "remove", label: null });
      else if (kind === "keep" || target === given)
        decisions.set(index, { index, path, given, decision: "keep", label: null });
      else decisions.set(index, { index, path, given, decision: "relabel", label: target });
      mark(card);
    }
    if (kind !== "undo") latest = chosen;
    store();
    tell(chosen.length === 1 ? words(chosen[0]) : `${chosen.length} images: ${kind}`);
  }

  function words(card) {
    const one = decisions.get(sampleOf.get(card).index);
    if (!one) return "no decision";
    return one.decision === "relabel" ? `label ${about.classes[one.label]}` : { keep: "kept", remove: "removed" }[one.decision];
  }

  function mark(card) {
    const one = decisions.get(sampleOf.get(card).index);
    if (one) card.dataset.decision = one.decision;
    else delete card.dataset.decision;
    card.querySelector(".decision").textContent = one ? words(card) : "";
    box(card).setAttribute("aria-label", labelOf.get(card) + (one ? `; decision: ${words(card)}` : ""));
  }

  const isDecided = (card) => decisions.has(sampleOf.get(card).index);

  // what a key or button applies to: the card, or the shown cards of its group that have no decision yet. A decision
  // moves the focus on, so undo on a card without one takes back the last decision.
  function targets(card, wholeGroup, kind) {
    if (!wholeGroup && kind === "undo" && !isDecided(card)) return latest.filter(isDecided);
    if (!wholeGroup) return [card];
    const shown = gallery.groupOf(card).filter((one) => !one.hidden);
    return shown.filter((one) => isDecided(one) === (kind === "undo"));
  }

  function act(card, kind, wholeGroup) {
    const chosen = targets(card, wholeGroup, kind);
    if (!chosen.length) return tell(kind === "undo" ? "no decision to undo" : "every image of the group has a decision");
    const finish = (label) => {
      const order = gallery.fitting();
      decide(chosen, kind, label);
      if (kind === "undo") back(chosen[0], card);
      else advance(order, chosen.at(-1));
    };
    if (kind === "other") choose(chosen, finish);
    else finish(null);
  }

  // to the card whose decision was undone
  function back(undone, from) {
    gallery.show();
    if (undone === from) return;
    if (undone.hidden) gallery.showAll();
    focus(undone);
  }

  // the next card without a decision, else the next shown one
  function advance(order, from) {
    gallery.show();
    const later = order.slice(order.indexOf(from) + 1);
    const open = later.find((card) => !decisions.has(sampleOf.get(card).index));
    if (open && open.hidden) gallery.showAll();
    const next = open ?? (from.hidden ? gallery.shownCards().at(-1) : from);
    if (next) focus(next);
    else find("show").focus();
  }

  function focus(card) {
    box(card).focus();
    card.scrollIntoView({ block: "nearest" });
  }

  function move(card, step) {
    const order = gallery.fitting();
    const next = order[order.indexOf(card) + step];
    if (next && next.hidden) gallery.showAll();
    if (next) focus(next);
  }

  // cards in a row of the grid, so that the arrow keys up and down stay in their column
  function rowLength(card) {
    const shown = gallery.shownCards();
    return Math.max(1, shown.filter((one) => one.offsetTop === card.offsetTop).length);
  }

  // ---- keep, save, load ----

  const changed = () => [...decisions.values()].filter((one) => JSON.stringify(one) !== JSON.stringify(past.get(one.index)));

  function store() {
    try {
      localStorage.setItem(about.key, JSON.stringify(changed().map(cells)));
    } catch {
      find("storage").hidden = false;
    }
    const here = cards.filter((card) => decisions.has(sampleOf.get(card).index)).length;
    const others = decisions.size - here;
    find("decided").textContent =
      `${here} of ${cards.length} decided` + (others ? `, ${others} decisions about other images` : "");
    find("save-decisions").disabled = decisions.size === 0;
    find("clear-decisions").disabled = changed().length === 0;
  }

  function restore() {
    try {
      for (const row of JSON.parse(localStorage.getItem(about.key) ?? "[]")) decisions.set(row[0], fromCells(row));
    } catch {
      find("storage").hidden = false;
    }
    for (const card of cards) mark(card);
    store();
  }

  function save() {
    const rows = [...decisions.values()].sort((a, b) => a.index - b.index).map(cells);
    gallery.download([COLUMNS, ...rows], "corrections.csv");
    tell(`${rows.length} decisions saved as corrections.csv`);
  }

  function tell(text) {
    find("review-status").textContent = text;
  }

  async function load(file) {
    try {
      const loaded = readTable(decode(await file.arrayBuffer()), file.name);
      for (const one of loaded) decisions.set(one.index, one);
      for (const card of cards) mark(card);
      store();
      gallery.show();
      tell(`${loaded.length} decisions loaded from ${file.name}`);
    } catch (error) {
      tell(`nothing loaded: ${error.message}`);
    }
  }

  function decode(buffer) {
    const bytes = new Uint8Array(buffer);
    const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : "utf-8";
    return new TextDecoder(encoding).decode(bytes); // drops the byte order mark
  }

  // rows of cells with their line numbers, as RFC 4180 has them; Excel may write semicolons or tabs, and a line sep=;
  function parse(text) {
    const stripped = text.replace(/^sep=.\r?\n/, "");
    const head = stripped.slice(0, stripped.search(/[\r\n]|$/));
    const mark = [",", ";", "\t"].find((one) => head.split(one).length > 2) ?? ",";
    const rows = [];
    let [row, cell, quoted] = [[], "", false];
    let line = 1 + (text.length > stripped.length);
    let start = line;
    const end = () => {
      row.push(cell);
      if (row.some((one) => one !== "")) rows.push({ line: start, cells: row });
      [row, cell, start] = [[], "", line];
    };
    for (let place = 0; place < stripped.length; place++) {
      const letter = stripped[place];
      if (letter === "\n" || (letter === "\r" && stripped[place + 1] !== "\n")) line++;
      if (quoted) {
        if (letter !== '"') cell += letter;
        else if (stripped[place + 1] === '"') cell += stripped[++place];
        else quoted = false;
      } else if (letter === '"' && cell === "") quoted = true;
      else if (letter === mark) {
        row.push(cell);
        cell = "";
      } else if (letter === "\n" || (letter === "\r" && stripped[place + 1] !== "\n")) end();
      else if (letter !== "\r") cell += letter;
    }
    end();
    return rows;
  }

  function readTable(text, name) {
    const [head, ...rows] = parse(text);
    const names = (head?.cells ?? []).map((one) => one.trim().toLowerCase());
    for (const column of COLUMNS)
      if (!names.includes(column)) throw Error(`${name}:1: no column ${column}; load a corrections.csv of this run`);
    if (!rows.length) throw Error(`${name}: no rows; load a corrections.csv of this run`);
    const place = Object.fromEntries(names.map((one, number) => [one, number]));
    return rows.map((row) => checked(Object.fromEntries(COLUMNS.map((one) => [one, (row.cells[place[one]] ?? "").trim()])), `${name}:${row.line}`));
  }

  function checked(row, where) {
    if (!/^\d+$/.test(row.index)) throw Error(`${where}: index ${row.index} is not a whole number; correct it`);
    const index = Number(row.index);
    const card = cardOf.get(index);
    const path = /^'[=+\-@]/.test(row.path) ? row.path.slice(1) : row.path;
    const given = classOf(row.given_label, `${where}: given_label`);
    if (card) {
      const known = sampleOf.get(card);
      if (known.path.trim() !== path && known.path.trim() !== row.path)
        throw Error(`${where}: index ${index} is ${known.path} here, not ${path}; load the corrections of this run`);
      if (known.given !== given)
        throw Error(`${where}: given_label ${row.given_label} where this run has ${known.given}; load the corrections of this run`);
    }
    if (!["relabel", "keep", "remove"].includes(row.decision))
      throw Error(`${where}: decision ${row.decision}; write relabel, keep or remove`);
    const label = row.decision === "relabel" ? classOf(row.label, `${where}: label`) : null;
    return { index, path: card ? sampleOf.get(card).path : path, given, decision: row.decision, label };
  }

  function classOf(text, where) {
    const number = /^\d+$/.test(text) ? Number(text) : about.classes.indexOf(text);
    if (number < 0 || number >= about.classes.length) throw Error(`${where} ${text} is no class of this run; correct it`);
    return number;
  }

  // ---- another class ----

  const chooser = find("chooser");
  let onChoice = null;

  function choose(chosen, then) {
    onChoice = then;
    find("chooser-title").textContent = chosen.length === 1 ? "Class of this image" : `Class of ${chosen.length} images`;
    find("class-search").value = "";
    list_classes();
    chooser.showModal();
    find("class-search").focus();
  }

  function list_classes() {
    const wanted = find("class-search").value.toLowerCase();
    const fits = about.classes.map((name, k) => [name, k]).filter(([name]) => name.toLowerCase().includes(wanted));
    find("class-list").replaceChildren(...fits.map(([name, k]) => new Option(name, String(k))));
    find("class-list").selectedIndex = fits.length ? 0 : -1;
  }

  function accept() {
    const value = find("class-list").value;
    if (value === "") return;
    chooser.close();
    onChoice(Number(value));
  }

  find("class-search").addEventListener("input", list_classes);
  find("class-search").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const options = find("class-list");
    options.selectedIndex = Math.min(Math.max(options.selectedIndex + step, 0), options.length - 1);
  });
  find("class-list").addEventListener("dblclick", accept);
  chooser.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    accept();
  });
  find("class-cancel").addEventListener("click", () => chooser.close());
  chooser.addEventListener("close", () => current && focus(current));

  // ---- mouse and keys ----

  function button(text, label, action) {
    const element = document.createElement("button");
    element.type = "button";
    element.textContent = text;
    element.setAttribute("aria-label", label);
    element.addEventListener("click", action);
    return element;
  }

  for (const card of cards) {
    const row = document.createElement("span");
    row.className = "actions";
    for (const [kind, text, key] of BUTTONS) {
      const one = button(text, `${text} (${key}): ${labelOf.get(card)}`, () => {
        current = card;
        act(card, kind, false);
      });
      one.tabIndex = -1; // the keys do the same
      row.append(one);
    }
    card.append(row);
  }
  gallery.decorators.push((element, group) => {
    for (const [kind, text, key] of BUTTONS) {
      const label = `${text} all shown in this group (Shift+${key.toUpperCase()})`;
      element.append(button(`${text} all`, label, () => {
        current = group.find((card) => !card.hidden);
        if (current) act(current, kind, true);
      }));
    }
  });

  const KEYS = { a: "accept", k: "keep", o: "other", r: "remove", u: "undo" };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.target.closest("select, input:not([type=checkbox])")) {
      if (event.key !== "Escape") return; // a field takes its letters
      const card = current && !current.hidden ? current : gallery.shownCards()[0];
      if (card) focus(card);
      return event.preventDefault();
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const inList = list.contains(document.activeElement);
    if (event.key === "?") find("keys").showModal();
    else if (key === "s") find("save-decisions").disabled || save();
    else if (key in KEYS || key === "n" || key === "p") {
      const card = current && !current.hidden ? current : null;
      if (!card) gallery.shownCards().slice(0, 1).forEach(focus);
      else if (key in KEYS) act(card, KEYS[key], event.shiftKey);
      else move(card, key === "n" ? 1 : -1);
    } else if (inList && current && key.startsWith("Arrow")) {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: rowLength(current), ArrowUp: -rowLength(current) }[key];
      move(current, step);
    } else return;
    event.preventDefault();
  }

  document.addEventListener("keydown", onKey);
  list.addEventListener("focusin", (event) => (current = event.target.closest(".card") ?? current));
  find("show").addEventListener("change", gallery.show);
  gallery.filter((card) => {
    const wanted = find("show").value;
    return !wanted || decisions.has(sampleOf.get(card).index) === (wanted === "decided");
  });
  find("save-decisions").addEventListener("click", save);
  find("load-decisions").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) load(file).then(() => (event.target.value = ""));
  });
  find("clear-decisions").addEventListener("click", () => {
    decisions.clear();
    for (const [index, one] of past) decisions.set(index, one);
    for (const card of cards) mark(card);
    store();
    gallery.show();
    tell("decisions of this page cleared");
  });
  find("open-keys").addEventListener("click", () => find("keys").showModal());
  find("close-keys").addEventListener("click", () => find("keys").close());
  restore();
  gallery.show();
})();
