"use strict";
// Draws the data of the page. Every name goes into the page as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (name, text = "", more = {}) => {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(more)) made.setAttribute(key, value);
    return made;
  };
  const word = (verdict) => data.words[verdict];
  const mark = (name, verdict, more = {}) =>
    make(name, data.symbols[verdict], { ...more, class: `mark ${verdict || "self"}` });
  const nameOf = ({ protocol, port }) => (port === undefined ? protocol : `${protocol} ${port}`);
  const pairs = (content, verdict) =>
    content.reasons
      .filter(({ reason }) => !verdict || data.reasons[reason].verdict === verdict)
      .reduce((sum, one) => sum + one.pairs, 0);
  const titleOf = (sheet) => sheet.ports.map(nameOf).join(", ");
  const filters = { protocol: byId("protocol"), port: byId("port"), from: byId("from"), to: byId("to") };

  function choices(select, values) {
    select.append(make("option", "all", { value: "" }));
    for (const value of new Set(values)) select.append(make("option", value, { value }));
    select.addEventListener("change", draw);
  }

  function wanted(sheet) {
    const { protocol, port } = filters;
    return sheet.ports.some(
      (one) =>
        (!protocol.value || protocol.value === one.protocol) && (!port.value || port.value === String(one.port)),
    );
  }

  const inside = (select) => (group) => !select.value || group.namespaces.includes(select.value);

  function draw() {
    const rows = data.sources.map((_, i) => i).filter((i) => inside(filters.from)(data.sources[i]));
    const columns = data.destinations.map((_, i) => i).filter((i) => inside(filters.to)(data.destinations[i]));
    const sheets = data.sheets.filter(wanted);
    byId("sheets").replaceChildren(...sheets.map((sheet) => section(sheet, rows, columns)));
    byId("sheets").querySelector("button")?.setAttribute("tabindex", "0");
    byId("shown").textContent = `${sheets.length} of ${data.sheets.length} tables, ${rows.length} of ` +
      `${data.sources.length} rows, ${columns.length} of ${data.destinations.length} columns`;
  }

  function section(sheet, rows, columns) {
    const table = make("table");
    table.append(make("caption", `${titleOf(sheet)}: rows connect to columns`));
    const head = make("tr");
    head.append(make("td"));
    for (const column of columns) {
      const cell = make("th", "", { scope: "col", title: data.destinations[column].pods.join(", ") });
      cell.append(make("span", data.destinations[column].name));
      head.append(cell);
    }
    table.createTHead().append(head);
    const body = table.createTBody();
    for (const row of rows) {
      const line = make("tr");
      line.append(make("th", data.sources[row].name, { scope: "row", title: data.sources[row].pods.join(", ") }));
      for (const column of columns) line.append(cellOf(sheet, row, column));
      body.append(line);
    }
    const made = make("section");
    made.append(table);
    return made;
  }

  function cellOf(sheet, row, column) {
    const cell = make("td");
    const content = sheet.rows[row][column];
    if (content === null) {
      cell.append(mark("span", "", { title: word("") }));
      return cell;
    }
    const source = data.sources[row].name;
    const destination = data.destinations[column].name;
    const button = mark("button", content.verdict, {
      type: "button",
      tabindex: "-1",
      "aria-pressed": "false",
      "aria-label": `${source} to ${destination}, ${titleOf(sheet)}: ${word(content.verdict)}`,
    });
    if (content.verdict === "mixed") button.textContent += `${pairs(content, "allowed")}/${pairs(content)}`;
    button.addEventListener("click", () => tell(button, sheet, row, column, content));
    button.addEventListener("keydown", move);
    cell.append(button);
    return cell;
  }

  function tell(button, sheet, row, column, content) {
    for (const other of document.querySelectorAll("button[aria-pressed=true]")) {
      other.setAttribute("aria-pressed", "false");
    }
    button.setAttribute("aria-pressed", "true");
    focusOn(button);
    const parts = [
      make("h2", `${data.sources[row].name} to ${data.destinations[column].name}, ${titleOf(sheet)}`),
      members("From", data.sources[row]),
      members("To", data.destinations[column]),
    ];
    for (const { reason, pairs: number } of content.reasons) {
      const { verdict } = data.reasons[reason];
      parts.push(make("h3", `${data.symbols[verdict]} ${word(verdict)}${number > 1 ? `, ${number} pairs of pods` : ""}`));
      const list = make("ul");
      list.append(...data.reasonLines[reason].map((line) => make("li", line)));
      parts.push(list);
    }
    byId("reason").replaceChildren(...parts);
  }

  function members(label, group) {
    const shown = group.pods.slice(0, data.mostMembers).join(", ");
    const more = group.pods.length - data.mostMembers;
    return make("p", `${label}: ${shown}${more > 0 ? ` and ${more} more` : ""}`);
  }

  function focusOn(button) {
    for (const other of document.querySelectorAll("main button[tabindex='0']")) other.setAttribute("tabindex", "-1");
    button.setAttribute("tabindex", "0");
    button.focus();
  }

  // Arrow keys move from cell to cell, over those of a pod with itself; Tab leaves the table.
  function move(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const table = event.target.closest("table");
    const cell = event.target.closest("td");
    let row = cell.parentElement.rowIndex;
    let column = cell.cellIndex;
    for (;;) {
      row += step[0];
      column += step[1];
      const next = table.rows[row]?.cells[column];
      if (!next) return;
      const button = next.querySelector("button");
      if (button) {
        focusOn(button);
        return;
      }
    }
  }

  byId("about").textContent = data.about;
  byId("notes").replaceChildren(...data.notes.map((note) => make("li", note)));
  for (const verdict of Object.keys(data.symbols)) {
    const entry = make("li");
    entry.append(mark("span", verdict, { "aria-hidden": "true" }), ` ${word(verdict)}`);
    byId("legend").append(entry);
  }
  const ports = data.sheets.flatMap((sheet) => sheet.ports);
  choices(filters.protocol, ports.map((one) => one.protocol));
  choices(filters.port, ports.filter((one) => one.port !== undefined).map((one) => one.port).sort((a, b) => a - b));
  choices(filters.from, data.sources.flatMap((group) => group.namespaces).sort());
  choices(filters.to, data.destinations.flatMap((group) => group.namespaces).sort());
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  draw();
})();
