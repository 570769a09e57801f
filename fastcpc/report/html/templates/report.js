"use strict";
(() => {
  const list = document.querySelector(".cards");
  if (!list) return;
  const find = (id) => document.getElementById(id);
  const cards = [...list.children];
  const table = JSON.parse(find("rows").textContent);
  const first = Number(list.dataset.first);
  let all = false;

  const box = (card) => card.querySelector("input");
  const selected = () => cards.filter((card) => box(card).checked);

  function show() {
    const given = find("given").value;
    const suggested = find("suggested").value;
    const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = cards.filter(
      (card) =>
        (!given || card.dataset.given === given) &&
        (!suggested || card.dataset.suggested === suggested) &&
        words.every((word) => card.dataset.words.includes(word)),
    );
    const shown = new Set(all ? fits : fits.slice(0, first));
    for (const card of cards) card.hidden = !shown.has(card);
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

  const shownCards = () => cards.filter((card) => !card.hidden);

  // as in fastcpc-clean: an apostrophe before text that a spreadsheet would evaluate
  function cell(value) {
    const formula = typeof value === "string" && /^[=+\-@\t\r]/.test(value);
    const text = value === null ? "" : (formula ? "'" : "") + String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function save() {
    const rows = selected().map((card) => table.rows[Number(card.dataset.row)]);
    const text = [table.columns, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "suspects.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  for (const id of ["given", "suggested"]) find(id).addEventListener("change", show);
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
  find("save").addEventListener("click", save);
  find("more").addEventListener("click", () => {
    const before = shownCards().length;
    all = true;
    show();
    const next = shownCards()[before];
    if (next) box(next).focus();
  });
  show();
})();
