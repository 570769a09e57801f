"use strict";
// The gallery: filters, order, selection. review.js adds decisions.
const gallery = (() => {
  const list = document.querySelector(".cards");
  if (!list) return null;
  const find = (id) => document.getElementById(id);
  const cards = [...list.querySelectorAll(".card")]; // worst first
  const table = JSON.parse(find("rows").textContent);
  const first = Number(list.dataset.first);
  let ordered = cards;
  let headers = []; // of groups: {element, cards}
  let all = false;
  let isWanted = () => true; // set by review.js

  const box = (card) => card.querySelector("input");
  const selected = () => cards.filter((card) => box(card).checked);

  function fitting() {
    const given = find("given").value;
    const suggested = find("suggested").value;
    const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    return ordered.filter(
      (card) =>
        (!given || card.dataset.given === given) &&
        (!suggested || card.dataset.suggested === suggested) &&
        words.every((word) => card.dataset.words.includes(word)) &&
        isWanted(card),
    );
  }

  function show() {
    const fits = fitting();
    const shown = new Set(all ? fits : fits.slice(0, first));
    for (const card of cards) card.hidden = !shown.has(card);
    for (const header of headers) header.element.hidden = !header.cards.some((card) => shown.has(card));
    find("more").hidden = shown.size === fits.length;
    find("more").textContent = `Show all ${fits.length}`;
    count(shown.size, fits.length);
  }

  function count(shown, fits) {
    const number = selected().length;
    find("status").textContent =
      (shown === fits ? `${shown} shown` : `${shown} of ${fits} shown`) + `, ${number} selected`;
    find("save").disabled = number === 0;
  }

  function showAll() {
    all = true;
    show();
  }

  const shownCards = () => ordered.filter((card) => !card.hidden);

  // groups of two or more cards, the largest first; the other cards are the last group, without a title
  function groupsBy(key, title) {
    const found = new Map();
    for (const card of cards) found.set(key(card), [...(found.get(key(card)) ?? []), card]);
    const large = [...found.values()].filter((group) => group.length > 1).sort((a, b) => b.length - a.length);
    const single = cards.filter((card) => found.get(key(card)).length === 1);
    return [...large.map((group) => ({ title: title(group), cards: group })), { title: "", cards: single }];
  }

  const name = (card, kind) => card.querySelector(kind).textContent;
  const orders = {
    score: () => [{ title: "", cards }],
    pair: () =>
      groupsBy(
        (card) => `${card.dataset.given} ${card.dataset.suggested}`,
        (group) => `${name(group[0], "s")} → ${name(group[0], "strong")}`,
      ),
    similar: () => groupsBy((card) => card.dataset.group, () => "Similar images"),
  };

  function arrange() {
    const groups = orders[find("order").value]();
    ordered = groups.flatMap((group) => group.cards);
    headers = groups.filter((group) => group.title).map((group) => ({ element: header(group), cards: group.cards }));
    const before = new Map(headers.map((one) => [one.cards[0], one.element]));
    const focused = document.activeElement;
    list.replaceChildren(...ordered.flatMap((card) => (before.has(card) ? [before.get(card), card] : [card])));
    if (list.contains(focused)) focused.focus();
    show();
  }

  function header(group) {
    const element = document.createElement("li");
    element.className = "group";
    const text = document.createElement("h3");
    text.textContent = `${group.title}: ${group.cards.length}`;
    element.append(text);
    for (const decorate of decorators) decorate(element, group.cards);
    return element;
  }
  const decorators = [];

  // as in fastcpc-clean: an apostrophe before text that a spreadsheet would evaluate
  function cell(value) {
    const formula = typeof value === "string" && /^[=+\-@\t\r]/.test(value);
    const text = value === null ? "" : (formula ? "'" : "") + String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function download(rows, file) {
    const text = rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const rowOf = (card) => table.rows[Number(card.dataset.row)];
  for (const id of ["given", "suggested"]) find(id).addEventListener("change", show);
  find("order").addEventListener("change", arrange);
  find("search").addEventListener("input", show);
  find("search").form.addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("change", show);
  find("select-shown").addEventListener("click", () => {
    for (const card of shownCards()) box(card).checked = true;
    show();
  });
  find("clear-selection").addEventListener("click", () => {
    for (const card of cards) box(card).checked = false;
    show();
  });
  find("save").addEventListener("click", () => download([table.columns, ...selected().map(rowOf)], "suspects.csv"));
  find("more").addEventListener("click", () => {
    const before = shownCards().length;
    showAll();
    const next = shownCards()[before];
    if (next) box(next).focus();
  });
  show();
  return {
    list, cards, columns: table.columns, find, box, rowOf, show, showAll, fitting, shownCards, download, decorators,
    groupOf: (card) => headers.find((one) => one.cards.includes(card))?.cards ?? [card],
    filter: (wanted) => (isWanted = wanted),
  };
})();
